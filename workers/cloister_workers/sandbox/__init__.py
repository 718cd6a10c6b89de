# SPDX-License-Identifier: Apache-2.0
"""The sandbox in which a trainer runs: no network, no keys, no host files, no privileges.

`spec.SandboxSpec` says what the inside gets, `launch.launch` starts a program in it, `probe.probe` says whether this
host can do it at all, and `unsandboxed.launch_unsandboxed` is for sites whose signed policy allows to go without.
This file imports nothing: the launcher process loads the package for every job and must start fast.
"""
