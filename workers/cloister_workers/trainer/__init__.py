# SPDX-License-Identifier: Apache-2.0
"""The trainer: one process per job, without network and keys; it gets plaintext through a descriptor.

The path of a dataset: `rows` (bytes to rows) -> an objective (rows to examples) -> `split` -> `order` ->
`loop`.
"""
