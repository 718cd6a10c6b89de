# SPDX-License-Identifier: Apache-2.0
"""Mitigations, one a file, each as `MITIGATION`."""
