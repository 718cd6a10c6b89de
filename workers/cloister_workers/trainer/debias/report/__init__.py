# SPDX-License-Identifier: Apache-2.0
"""The page that shows what a job found: HTML with plots and JSON with names, both sealed."""
