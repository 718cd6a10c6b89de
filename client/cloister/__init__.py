# SPDX-License-Identifier: Apache-2.0
"""Cloister: adapt language models inside an organisation's own walls."""

__version__ = "0.1.0"
