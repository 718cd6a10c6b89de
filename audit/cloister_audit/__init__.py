# SPDX-License-Identifier: Apache-2.0
"""The audit ledger: one Merkle tree that nobody can quietly rewrite."""
