# SPDX-License-Identifier: Apache-2.0
"""Training that stays near where it began: a penalty on how far each prediction has moved.

The loss of a target token is its cross-entropy plus strength * KL(p before training || p now) over the vocabulary. The
model before training is not a second model: it is this one with its trained tensors put back for one forward pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from cloister_workers.messages import Metrics, RowReason
from cloister_workers.trainer.cross_entropy import token_losses
from cloister_workers.trainer.decoder import output_head
from cloister_workers.trainer.divergence import token_divergences
from cloister_workers.trainer.example import Example, Outcome
from cloister_workers.trainer.forward import evaluating
from cloister_workers.trainer.objectives import Objective
from cloister_workers.trainer.objectives.supervised import Supervised


class Before:
    """Copies of a model's trained tensors, made when this is made."""

    def __init__(self, model: torch.nn.Module) -> None:
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._tensors = [(parameter, parameter.detach().clone()) for parameter in trained]

    @contextmanager
    def restored(self, model: torch.nn.Module) -> Iterator[None]:
        """Within, `model` answers as it did: without dropout and without gradients. Not between a forward pass and its
        backward pass.
        """
        now = [parameter.data for parameter, _ in self._tensors]
        for parameter, kept in self._tensors:
            parameter.data = kept
        try:
            with evaluating(model):
                yield
        finally:
            for (parameter, _), data in zip(self._tensors, now, strict=True):
                parameter.data = data


@dataclass(frozen=True)
class Divergence:
    """KL(before || now) of each target's prediction, nats."""

    likelihood: Supervised
    before: Before

    def reference(self, model: torch.nn.Module, examples: Sequence[Example]) -> torch.Tensor:
        """Log-probabilities of the whole vocabulary before training, float32 [label tokens, vocabulary]."""
        with self.before.restored(model):
            states, _, _ = self.likelihood.predictions(model, examples)
            logits: torch.Tensor = output_head(model)(states)
            return logits.float().log_softmax(-1)

    def sums(self, model: torch.nn.Module, examples: Sequence[Example]) -> torch.Tensor:
        """The sum over each example's targets, float32 [n], differentiable."""
        reference = self.reference(model, examples)
        states, _, owners = self.likelihood.predictions(model, examples)
        found = token_divergences(states, output_head(model), reference)
        return torch.zeros(len(examples), device=found.device).index_add(0, owners, found)


@dataclass(frozen=True)
class Anchored:
    """`likelihood` with the penalty in training; evaluations are without it."""

    likelihood: Supervised
    before: Before
    strength: float

    def read(self, rows: Sequence[dict[str, object]]) -> list[Example | RowReason]:
        return self.likelihood.read(rows)

    def micro_batches(self, batch: Sequence[Example]) -> list[list[Example]]:
        return self.likelihood.micro_batches(batch)

    def weight(self, example: Example) -> int:
        return self.likelihood.weight(example)

    def outcome(self, model: torch.nn.Module, examples: Sequence[Example]) -> Outcome:
        if not torch.is_grad_enabled():
            return self.likelihood.outcome(model, examples)
        reference = Divergence(self.likelihood, self.before).reference(model, examples)
        states, targets, owners = self.likelihood.predictions(model, examples)
        head = output_head(model)
        losses = token_losses(states, head, targets) + self.strength * token_divergences(states, head, reference)
        sums = torch.zeros(len(examples), device=losses.device).index_add(0, owners, losses)
        return Outcome(sums, torch.zeros(len(examples), dtype=torch.int64))

    def score(self, examples: Sequence[Example], sums: Sequence[float], predicted: Sequence[int]) -> Metrics:
        return self.likelihood.score(examples, sums, predicted)


@dataclass(frozen=True)
class Retaining:
    """`inner` for examples that compare sequences; a text that stands alone among them is to be left as it was, and its
    loss is strength * KL(p before training || p now), summed over its tokens. Weights are 1.
    """

    inner: Objective
    divergence: Divergence
    strength: float

    def read(self, rows: Sequence[dict[str, object]]) -> Sequence[Example | RowReason | tuple[Example, ...]]:
        return self.inner.read(rows)

    def micro_batches(self, batch: Sequence[Example]) -> list[list[Example]]:
        return self.inner.micro_batches(batch)

    def weight(self, example: Example) -> int:
        return 1

    def outcome(self, model: torch.nn.Module, examples: Sequence[Example]) -> Outcome:
        compared = [place for place, example in enumerate(examples) if example.other is not None]
        alone = [place for place, example in enumerate(examples) if example.other is None]
        device = self.divergence.likelihood.device
        sums = torch.zeros(len(examples), device=device)
        predicted = torch.zeros(len(examples), device=device)
        if alone:  # first: the model before training must not stand between a forward pass and its backward pass
            moved = self.divergence.sums(model, [examples[place] for place in alone])
            sums = sums.index_add(0, torch.tensor(alone, device=device), self.strength * moved)
        if compared:
            found, places = self.inner.outcome(model, [examples[place] for place in compared]), torch.tensor(compared)
            sums = sums.index_add(0, places.to(device), found.sums)
            predicted = predicted.index_add(0, places.to(device), found.predicted.to(device).float())
        return Outcome(sums, predicted)

    def score(self, examples: Sequence[Example], sums: Sequence[float], predicted: Sequence[float]) -> Metrics:
        return self.inner.score(examples, sums, predicted)
