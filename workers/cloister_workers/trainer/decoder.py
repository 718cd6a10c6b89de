# SPDX-License-Identifier: Apache-2.0
"""A causal model's decoder and output head, run on packed sequences; adapters of peft stay in force.

A model whose attention is not the packed one runs padded (`probe.settle_packing` decides): its logits then stand in the
place of the hidden states, and its output head changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from cloister_workers.trainer.attention import NAME
from cloister_workers.trainer.eager_attention import padded_logits
from cloister_workers.trainer.packing import cumulative_lengths, position_ids


def hidden_states(
    model: torch.nn.Module, tokens: Sequence[int], lengths: Sequence[int], device: torch.device
) -> torch.Tensor:
    """Last hidden states [1, T, h] of the sequences with these lengths, concatenated in `tokens`."""
    causal = _causal(model)
    if not _packed(causal):
        return padded_logits(causal, tokens, lengths, device)
    decoder = getattr(causal, str(causal.base_model_prefix))
    states: torch.Tensor = decoder(
        input_ids=torch.tensor([list(tokens)], device=device),
        position_ids=torch.tensor([position_ids(lengths)], device=device),
        cu_seqlens=torch.tensor(cumulative_lengths(lengths), dtype=torch.int32, device=device),
        max_seqlen=max(lengths),
        use_cache=False,
    ).last_hidden_state
    return states


def output_head(model: torch.nn.Module) -> torch.nn.Module:
    """The layer from hidden states to logits."""
    causal = _causal(model)
    if not _packed(causal):
        return torch.nn.Identity()
    head: torch.nn.Module = causal.get_output_embeddings()  # type: ignore[operator]
    return head


def _packed(causal: torch.nn.Module) -> bool:
    return getattr(causal.config, "_attn_implementation", None) == NAME


def _causal(model: torch.nn.Module) -> torch.nn.Module:
    """The transformers model inside a peft one. Its layers carry the adapters, so calling it skips nothing."""
    unwrap: Callable[[], torch.nn.Module] | None = getattr(model, "get_base_model", None)
    return model if unwrap is None else unwrap()
