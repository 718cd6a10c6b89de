# SPDX-License-Identifier: Apache-2.0
"""Jobs and releases as work: submit, lease, fence, report, finish."""
