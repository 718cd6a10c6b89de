# SPDX-License-Identifier: Apache-2.0
"""Training of the task's own head alone, on a frozen model."""

from __future__ import annotations

import torch

from cloister_workers.errors import SpecError
from cloister_workers.messages import FailureCode, SpecField
from cloister_workers.trainer.model import Base

_HEADS = ("classifier", "score", "qa_outputs", "pre_classifier", "classification_head")
"""What transformers calls the last layers of models with a task."""


def attach_head(base: Base) -> torch.nn.Module:
    """The model with its fresh modules trainable, or where it has none (a version that is trained on), its head.

    Raises SpecError ADAPTER_INVALID for a model without a head of its own.
    """
    model = base.model.requires_grad_(False)
    parts = list(model.named_modules())
    # By its last name, as peft finds what to save whole: a fresh pooler stands inside the backbone.
    heads = [part for name, part in parts if name.rpartition(".")[2] in base.fresh]
    heads = heads or [part for name, part in parts if name in _HEADS]
    if not heads:
        raise SpecError(
            FailureCode.ADAPTER_INVALID,
            SpecField.ADAPTER,
            "adapter.head trains a task's own head, which this model does not have; give lora or full",
        )
    for head in heads:
        head.requires_grad_(True)
    return model
