# SPDX-License-Identifier: Apache-2.0
"""A check, before training, that packing leaves this model's results as they are.

A few made-up sequences go through the model one by one with transformers' own eager attention, and once
packed, through our attention and the bare output head. Models with soft-capped or scaled logits, attention
sinks or other features that packing would lose differ: `settle_packing` has them run padded (`eager_attention.py`),
`check_packing` refuses them. A model that sees tokens ahead is refused either way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch

from cloister_workers.errors import TrainerError
from cloister_workers.messages import FailureCode
from cloister_workers.trainer.attention import NAME, register
from cloister_workers.trainer.decoder import hidden_states, output_head
from cloister_workers.trainer.eager_attention import PADDED
from cloister_workers.trainer.forward import evaluating

_LENGTHS = (5, 9, 1, 3)
_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 5e-2}  # of the largest logit


def check_packing(model: torch.nn.Module, device: torch.device) -> None:
    """Leave the model packed. Raises TrainerError MODEL_UNSUPPORTED where packed and single results differ; draws no
    random numbers.
    """
    if not _agrees(model, NAME, _packed_difference, device):
        raise _unsupported(
            "this architecture gives other results when sequences are packed; use a plain decoder such as Llama or Qwen"
        )


def settle_packing(model: torch.nn.Module, device: torch.device) -> None:
    """Leave the model packed where that changes no result, else with attention that is padded; draws no random numbers.

    Raises TrainerError MODEL_UNSUPPORTED where a token's prediction depends on tokens after it.
    """
    if not _soft_capped(model) and _agrees(model, NAME, _packed_difference, device):
        return
    if not _agrees(model, PADDED, _prefix_difference, device):
        raise _unsupported(
            "its predictions depend on tokens that come later; use a decoder such as Llama or Qwen, or masked tokens"
        )


def _soft_capped(model: torch.nn.Module) -> bool:
    """Whether the configuration names a soft cap: while weights are small no logit comes near it, so a look at results
    alone would let it through, and it would be missing once the model has learned.
    """
    settings = cast("Any", model).config.get_text_config().to_dict()
    return any("softcap" in name.replace("_", "") and value for name, value in settings.items())


def _agrees(
    model: torch.nn.Module,
    attention: str,
    difference: Callable[[Any, torch.device], tuple[float, float]],
    device: torch.device,
) -> bool:
    """Whether two ways to the same logits differ by no more than rounding; the model is left with `attention`."""
    causal = cast("Any", model)
    try:
        with evaluating(model):
            apart, largest = difference(causal, device)
    except torch.OutOfMemoryError:
        raise
    except (TypeError, ValueError, AttributeError, RuntimeError):
        return False
    finally:
        causal.set_attn_implementation(attention)
    return apart <= _TOLERANCE.get(causal.dtype, 1e-3) * max(largest, 1e-6)


def _packed_difference(causal: Any, device: torch.device) -> tuple[float, float]:  # noqa: ANN401 - a transformers model
    register()
    causal.set_attn_implementation(NAME)
    sequences = _sequences(causal)
    flat = [token for sequence in sequences for token in sequence]
    packed = output_head(causal)(hidden_states(causal, flat, _LENGTHS, device))[0].float()
    causal.set_attn_implementation(PADDED)
    single = torch.cat([causal(torch.tensor([one], device=device)).logits[0] for one in sequences]).float()
    return float((packed - single).abs().max()), float(single.abs().max())


def _prefix_difference(causal: Any, device: torch.device) -> tuple[float, float]:  # noqa: ANN401
    """A whole sequence against its first half alone."""
    causal.set_attn_implementation(PADDED)
    whole = max(_sequences(causal), key=len)
    half = len(whole) // 2
    seen, alone = (
        causal(torch.tensor([part], device=device)).logits[0, :half].float() for part in (whole, whole[:half])
    )
    return float((seen - alone).abs().max()), float(alone.abs().max())


def _sequences(causal: Any) -> list[list[int]]:  # noqa: ANN401
    words = causal.config.get_text_config().vocab_size
    return [[(7 * place + 3 + 11 * number) % words for place in range(n)] for number, n in enumerate(_LENGTHS)]


def _unsupported(why: str) -> TrainerError:
    return TrainerError(FailureCode.MODEL_UNSUPPORTED, f"the model cannot be used: {why}")
