# SPDX-License-Identifier: Apache-2.0
"""What the site knows of sealed objects, versions, policies and releases."""
