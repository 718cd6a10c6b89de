# SPDX-License-Identifier: Apache-2.0
"""Errors of the embedded site.

DevError                    anything that keeps the site from starting
"""


class DevError(Exception):
    """The embedded site cannot be made or started."""
