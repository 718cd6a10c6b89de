# SPDX-License-Identifier: Apache-2.0
"""Schema history: one line, up and down, on both engines."""
