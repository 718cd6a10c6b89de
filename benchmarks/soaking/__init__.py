# SPDX-License-Identifier: Apache-2.0
"""Parts of the soak: what is run, what is measured, and how it is shown."""
