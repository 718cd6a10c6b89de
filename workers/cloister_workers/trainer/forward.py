# SPDX-License-Identifier: Apache-2.0
"""What forward passes that train nothing share: they disturb nothing, and little of a batch is padding."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from cloister_workers.trainer.attention import NAME

_LOGITS = 2**27  # numbers in the logits of one forward pass, half a gigabyte as float32


@contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[None]:
    """Evaluation mode and no gradients; each module's mode is afterwards as it was."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        with torch.no_grad():
            model.eval()
            yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def undisturbed(model: torch.nn.Module, device: torch.device) -> Iterator[None]:
    """`evaluating`, with attention that knows padding.

    Our packed attention ignores masks and needs lengths that plain calls do not give; where a model has it, torch's
    own takes its place. Modes, attention and random state are afterwards as they were.
    """
    inner = unwrapped(model)
    packed = getattr(inner.config, "_attn_implementation", None) == NAME
    generators = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=generators), evaluating(model):
        try:
            if packed:
                _plain_attention(inner)
            yield
        finally:
            if packed:
                inner.set_attn_implementation(NAME)


@contextmanager
def narrowed(model: torch.nn.Module, pick: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[None]:
    """Have the output head see `pick(hidden [rows, tokens, h])` alone, so that no logits are computed in vain.

    Only a hint: a model whose head is no module of its own, or gets anything else, computes all logits, which the
    shape of the result tells.
    """

    def narrow(_: torch.nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if args and isinstance(args[0], torch.Tensor) and args[0].dim() == 3:
            return (pick(args[0]), *args[1:])
        return None

    head = unwrapped(model).get_output_embeddings()
    handle = head.register_forward_pre_hook(narrow) if isinstance(head, torch.nn.Module) else None
    try:
        yield
    finally:
        if handle is not None:
            handle.remove()


def unwrapped(model: torch.nn.Module) -> Any:  # noqa: ANN401 - a transformers model
    """The transformers model inside a peft one; its layers carry the adapters."""
    unwrap: Callable[[], torch.nn.Module] | None = getattr(model, "get_base_model", None)
    return model if unwrap is None else unwrap()


def _plain_attention(inner: Any) -> None:  # noqa: ANN401 - a transformers model
    try:
        inner.set_attn_implementation("sdpa")
    except ValueError:  # an architecture that transformers has not ported to it
        inner.set_attn_implementation("eager")


def batches(lengths: Sequence[int], rows: int, vocabulary: int) -> Iterator[list[int]]:
    """Indices in order of length, as many in a batch as `rows` and the memory for logits allow, one at least."""
    tokens = _LOGITS // vocabulary
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda place: lengths[place]):
        if batch and (len(batch) == rows or (len(batch) + 1) * lengths[index] > tokens):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def log_probs_of(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Take log softmax(logits [n, V]) at targets [n], float64 [n]."""
    wide = logits.double()
    return wide.gather(1, targets[:, None])[:, 0] - wide.logsumexp(1)
