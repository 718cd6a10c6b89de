# SPDX-License-Identifier: Apache-2.0
"""Causal attention within each sequence of a packed row, and never across two.

Registered with transformers under `NAME`; the model then hands every layer's heads to `packed_attention`
together with the keyword arguments of the forward call, `cu_seqlens` (int32 [sequences + 1]) and `max_seqlen`
among them. No mask function is registered, so no mask is built. On a GPU one torch `varlen_attn` does all
sequences; it has no CPU kernel, so there each sequence goes through scaled_dot_product_attention by itself.

Not covered: dropout on attention weights on a GPU (the kernel has none), soft-capped scores, attention sinks;
`probe.py` finds models whose results packing would change.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch.nn import functional
from torch.nn.attention.varlen import varlen_attn

NAME = "cloister_packed"


def register() -> None:
    """Make `NAME` known to transformers; safe to repeat."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, packed_attention)


def packed_attention(  # noqa: PLR0913 - the signature that transformers calls
    module: torch.nn.Module,  # noqa: ARG001
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,  # noqa: ARG001
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    *,
    cu_seqlens: torch.Tensor,
    max_seqlen: int,
    **_: object,
) -> tuple[torch.Tensor, None]:
    """Query [1, heads, T, d], key and value [1, kv heads, T, d] to [1, T, heads, d]."""
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    if query.is_cuda:
        q, k, v = (tensor[0].transpose(0, 1).contiguous() for tensor in (query, key, value))
        window = (-1 if sliding_window is None else sliding_window - 1, 0)
        out = varlen_attn(q, k, v, cu_seqlens, cu_seqlens, max_seqlen, max_seqlen, scale=scaling, window_size=window)
        if not isinstance(out, torch.Tensor):
            raise TypeError("varlen_attn returned more than its output; this torch is not supported")
        return out[None], None
    parts = [
        functional.scaled_dot_product_attention(
            query[:, :, start:end],
            key[:, :, start:end],
            value[:, :, start:end],
            attn_mask=_band(end - start, sliding_window),
            is_causal=sliding_window is None or end - start <= sliding_window,
            dropout_p=dropout,
            scale=scaling,
        )
        for start, end in pairwise(cu_seqlens.tolist())
    ]
    return torch.cat(parts, dim=2).transpose(1, 2).contiguous(), None


def _band(length: int, window: int | None) -> torch.Tensor | None:
    """A causal mask of `window` tokens; None where plain causal attention is the same."""
    if window is None or length <= window:
        return None
    ones = torch.ones(length, length, dtype=torch.bool)
    return ones.tril() & ones.triu(1 - window)
