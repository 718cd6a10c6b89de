# SPDX-License-Identifier: Apache-2.0
"""Functions of many tokens, some of them at a time: what is large of each token, such as its logits, never exists
whole, in the backward pass neither.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch.utils.checkpoint import checkpoint

CHUNK = 1024  # tokens whose logits exist at one time


def chunked(function: Callable[..., torch.Tensor], *tensors: torch.Tensor) -> torch.Tensor:
    """What `function` makes of the tensors, each [n, ...], from so many of their rows at a time: [n, ...]. Where
    gradients are on, a chunk is computed again in the backward pass.
    """
    if torch.is_grad_enabled():
        return torch.cat([checkpoint(function, *part, use_reentrant=False) for part in chunks(*tensors)])
    return torch.cat([function(*part) for part in chunks(*tensors)])


def chunks(*tensors: torch.Tensor) -> Iterator[tuple[torch.Tensor, ...]]:
    """So many rows of each tensor at a time; they have equally many."""
    return zip(*(torch.split(tensor, CHUNK) for tensor in tensors), strict=True)
