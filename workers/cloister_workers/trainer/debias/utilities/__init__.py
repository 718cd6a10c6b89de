# SPDX-License-Identifier: Apache-2.0
"""Measures of utility, a file each family; each file lists its own in `UTILITIES`."""
