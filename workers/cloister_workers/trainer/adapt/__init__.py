# SPDX-License-Identifier: Apache-2.0
"""What of a model is trained."""

from __future__ import annotations

import torch

from cloister_workers.trainer.adapt.full import attach_full
from cloister_workers.trainer.adapt.head import attach_head
from cloister_workers.trainer.adapt.lora import attach_lora
from cloister_workers.trainer.adapt.quantized import NF4, quantize
from cloister_workers.trainer.adapt.saved import attach_saved, merge_adapter
from cloister_workers.trainer.model import Base
from cloister_workers.trainer.spec import Adapter, Full, Lora

__all__ = ["attach_full", "attach_head", "attach_lora", "attach_new", "attach_saved", "merge_adapter", "quantize"]


def attach_new(base: Base, wanted: Adapter) -> torch.nn.Module:
    """`base` with what the specification asks to train, fresh. Raises SpecError where that does not fit the model."""
    match wanted:
        case Lora():
            return attach_lora(quantize(base) if wanted.quantization == NF4 else base, wanted)
        case Full():
            return attach_full(base)
    return attach_head(base)
