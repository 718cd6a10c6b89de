# SPDX-License-Identifier: Apache-2.0
"""Completion notices: what a site is told when a job has ended."""
