# SPDX-License-Identifier: Apache-2.0
"""One thin handler for each RPC: it checks nothing that its domain module does not check."""
