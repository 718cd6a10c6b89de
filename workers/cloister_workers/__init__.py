# SPDX-License-Identifier: Apache-2.0
"""What runs on a worker host: the agent, the key agent and the trainer, each its own process."""
