# SPDX-License-Identifier: Apache-2.0
"""A check, before training, that packing leaves this model's results as they are.

A few made-up sequences go through the model one by one with transformers' own eager attention, and once
packed, through our attention and the bare output head. Models with soft-capped or scaled logits, attention
sinks or other features that packing would lose differ, and are refused instead of being trained wrongly.
"""

from __future__ import annotations

from typing import Any, cast

import torch

from cloister_workers.errors import TrainerError
from cloister_workers.messages import FailureCode
from cloister_workers.trainer.attention import NAME
from cloister_workers.trainer.decoder import hidden_states, output_head

_LENGTHS = (5, 9, 1, 3)
_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 5e-2}  # of the largest logit


def check_packing(model: torch.nn.Module, device: torch.device) -> None:
    """Raises TrainerError MODEL_UNSUPPORTED where packed and single results differ; draws no random
    numbers.
    """
    causal = cast("Any", model)
    was_training = causal.training
    causal.eval()
    try:
        with torch.no_grad():
            difference, largest = _difference(causal, device)
    except torch.OutOfMemoryError:
        raise
    except (TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise _unsupported() from error
    finally:
        causal.set_attn_implementation(NAME)
        causal.train(was_training)
    if not difference <= _TOLERANCE.get(causal.dtype, 1e-3) * max(largest, 1e-6):
        raise _unsupported()


def _difference(causal: Any, device: torch.device) -> tuple[float, float]:  # noqa: ANN401 - a transformers model
    words = causal.config.get_text_config().vocab_size
    sequences = [[(7 * place + 3 + 11 * number) % words for place in range(n)] for number, n in enumerate(_LENGTHS)]
    flat = [token for sequence in sequences for token in sequence]
    packed = output_head(causal)(hidden_states(causal, flat, _LENGTHS, device))[0].float()
    causal.set_attn_implementation("eager")
    single = torch.cat([causal(torch.tensor([one], device=device)).logits[0] for one in sequences]).float()
    return float((packed - single).abs().max()), float(single.abs().max())


def _unsupported() -> TrainerError:
    return TrainerError(
        FailureCode.MODEL_UNSUPPORTED,
        "this architecture gives other results when sequences are packed; use a plain decoder such as Llama or Qwen",
    )
