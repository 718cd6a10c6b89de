# SPDX-License-Identifier: Apache-2.0
"""Token losses from hidden states, chunk by chunk: logits of tokens x vocabulary never exist whole.

With a frozen output head the gradient of a token's loss needs that token's logits alone, so it is formed in
the forward pass and only scaled in the backward pass (exact, and the head is multiplied once). A trained head
is recomputed instead.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from cloister_workers.trainer.chunked import chunked, chunks


def token_losses(hidden: torch.Tensor, head: torch.nn.Module, targets: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of each token, float32 [n], from hidden [n, h] and targets int64 [n]."""
    frozen = isinstance(head, torch.nn.Linear) and not any(p.requires_grad for p in head.parameters())
    if frozen and torch.is_grad_enabled():
        losses: torch.Tensor = _FrozenHead.apply(hidden, head, targets)  # type: ignore[no-untyped-call]
        return losses
    return chunked(lambda part, true: _losses(head(part).float(), true), hidden, targets)


def token_hits(hidden: torch.Tensor, head: torch.nn.Module, targets: torch.Tensor) -> torch.Tensor:
    """Whether the likeliest token is the target, bool [n]."""
    return chunked(lambda part, true: head(part).argmax(-1) == true, hidden, targets)


def _losses(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(logits, targets, reduction="none")


class _FrozenHead(torch.autograd.Function):
    """losses = cross_entropy(head(hidden), targets); d loss_i / d hidden_i = (softmax_i - onehot_i) W."""

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        hidden: torch.Tensor,
        head: torch.nn.Linear,
        targets: torch.Tensor,
    ) -> torch.Tensor:
        losses, slopes = [], []
        for part, true in chunks(hidden.detach(), targets):
            logits = head(part).float()
            losses.append(_losses(logits, true))
            slope = logits.softmax(-1)
            slope[torch.arange(len(true), device=true.device), true] -= 1
            slopes.append(slope.to(head.weight.dtype) @ head.weight)
        ctx.save_for_backward(torch.cat(slopes))
        return torch.cat(losses)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *grads: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (slopes,) = ctx.saved_tensors  # type: ignore[attr-defined]
        return (slopes * grads[0][:, None]).to(slopes.dtype), None, None
