# SPDX-License-Identifier: Apache-2.0
"""The key agent: the one process of a worker host that holds its keys, and opens only what the evidence allows.

`server` is its socket, `gate` checks and remembers before anything is unwrapped, `jobs` and `releases` say what may
be done after that, `client` is the agent's end.  Neither torch nor grpc is imported here, and no network is used.
"""
