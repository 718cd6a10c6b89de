# SPDX-License-Identifier: Apache-2.0
"""The control plane: it stores and queues what it cannot read."""

__version__ = "0.1.0"
