# SPDX-License-Identifier: Apache-2.0
"""Measures of bias, one or a few variants a file; each file lists its own in `MEASURES`."""
