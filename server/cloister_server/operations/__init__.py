# SPDX-License-Identifier: Apache-2.0
"""Running the site: maintenance, and which hosts take work."""
