# SPDX-License-Identifier: Apache-2.0
"""A whole site on loopback, for trying Cloister out: the embedded site and the demo."""
