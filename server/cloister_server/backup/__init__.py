# SPDX-License-Identifier: Apache-2.0
"""Backups of the control plane, and the way back from one."""
