# SPDX-License-Identifier: Apache-2.0
"""The agent: leases work, moves ciphertext, starts trainers, and reports.  It holds no key that opens anything.

The path of a job: `loop` leases it, `runner` takes it through, with `transfer` (blobs), `openings` (evidence),
`modelcache` (base models), `training` (the trainer's process and words) and `artifacts` (checkpoints and results);
`lease` keeps it alive meanwhile, and `outcome` says how it ended.
"""
