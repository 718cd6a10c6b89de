# SPDX-License-Identifier: Apache-2.0
"""Tables, engines and the unit of work."""
