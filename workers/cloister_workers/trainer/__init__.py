# SPDX-License-Identifier: Apache-2.0
"""The trainer: one process per job, without network and keys; it gets plaintext through a descriptor.

`dispatch` takes a job to what its method is in the `catalogue`: a job of training (`job`, which hands `loop` what
`method` describes, one file a method in `objectives/`), or a step of its own (`steps/`: reinforcement, retrieval,
in-context learning, evaluation, inference), or `debias/`. A version's layers above its base are in `stack/`.

The path of a dataset: `rows` (bytes to rows) -> an objective (rows to examples) -> `split` -> `order` ->
`loop`.
"""
