# SPDX-License-Identifier: Apache-2.0
"""The `cloister` command: one file per noun.

Nothing here imports gRPC, protobuf or cryptography before a command runs: `cloister --help` must be quick.
"""
