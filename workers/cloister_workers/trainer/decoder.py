# SPDX-License-Identifier: Apache-2.0
"""A causal model's decoder and output head, run on packed sequences; adapters of peft stay in force."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from cloister_workers.trainer.packing import cumulative_lengths, position_ids


def hidden_states(
    model: torch.nn.Module, tokens: Sequence[int], lengths: Sequence[int], device: torch.device
) -> torch.Tensor:
    """Last hidden states [1, T, h] of the sequences with these lengths, concatenated in `tokens`."""
    causal = _causal(model)
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
    head: torch.nn.Module = _causal(model).get_output_embeddings()  # type: ignore[operator]
    return head


def _causal(model: torch.nn.Module) -> torch.nn.Module:
    """The transformers model inside a peft one. Its layers carry the adapters, so calling it skips nothing."""
    unwrap: Callable[[], torch.nn.Module] | None = getattr(model, "get_base_model", None)
    return model if unwrap is None else unwrap()
