# SPDX-License-Identifier: Apache-2.0
"""Full fine-tuning: every weight is trained."""

from __future__ import annotations

import torch

from cloister_workers.trainer.model import Base


def attach_full(base: Base) -> torch.nn.Module:
    """The model itself with every parameter trainable."""
    return base.model.requires_grad_(True)
