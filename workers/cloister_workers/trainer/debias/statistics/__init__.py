# SPDX-License-Identifier: Apache-2.0
"""Statistics of paired, clustered measurements; numbers in, numbers out."""
