# SPDX-License-Identifier: Apache-2.0
"""Everything that verifies: canonical bytes, Merkle proofs, signed notes, checkpoints, signed documents.

Pure functions and frozen values: no files, no network, no clock.
The client, the key agent and the auditor share this one package, so all of them accept and refuse alike.
"""
