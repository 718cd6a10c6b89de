# SPDX-License-Identifier: Apache-2.0
"""Supervised fine-tuning of a causal model, loss on completions only, examples packed without padding.

A batch of a step is packed (best fit decreasing) into rows of micro_batch_size * max_seq_length tokens; each
is one forward pass. Token t is predicted from the hidden state at t-1 of the same example; a first token is
never a target. How rows become text is in `chat.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch

from cloister_workers.messages import MetricName, Metrics, RowReason
from cloister_workers.trainer import metrics
from cloister_workers.trainer.cross_entropy import token_hits, token_losses
from cloister_workers.trainer.decoder import hidden_states, output_head
from cloister_workers.trainer.example import Example, Outcome
from cloister_workers.trainer.method import Setup, TrainingMethod
from cloister_workers.trainer.objectives.chat import ChatReader
from cloister_workers.trainer.packing import best_fit_decreasing
from cloister_workers.trainer.spec import Method


class Reader(Protocol):
    """Turns one row into tokens with the learned ones marked."""

    @property
    def max_seq_length(self) -> int: ...

    def read(self, row: dict[str, object]) -> Example | RowReason: ...


@dataclass(frozen=True)
class Supervised:
    """Prompt to completion, or the assistant's turns of a chat; with another reader, whatever it marks as learned."""

    reader: Reader
    row_tokens: int
    device: torch.device

    def read(self, rows: Sequence[dict[str, object]]) -> list[Example | RowReason]:
        return [self.reader.read(row) for row in rows]

    def micro_batches(self, batch: Sequence[Example]) -> list[list[Example]]:
        rows = best_fit_decreasing([len(example.tokens) for example in batch], self.row_tokens)
        return [[batch[index] for index in row] for row in rows]

    def with_micro_batch(self, size: int) -> Supervised:
        return replace(self, row_tokens=size * self.reader.max_seq_length)

    def weight(self, example: Example) -> int:
        return sum(example.learned[1:])

    def outcome(self, model: torch.nn.Module, examples: Sequence[Example]) -> Outcome:
        states, targets, owners = self.predictions(model, examples)
        head = output_head(model)
        sums = torch.zeros(len(examples), device=self.device)
        sums = sums.index_add(0, owners, token_losses(states, head, targets))
        hits = torch.zeros(len(examples), dtype=torch.int64, device=self.device)
        if not torch.is_grad_enabled():
            hits = hits.index_add(0, owners, token_hits(states, head, targets).long())
        return Outcome(sums, hits)

    def predictions(
        self, model: torch.nn.Module, examples: Sequence[Example]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """One forward pass: the hidden states [label tokens, h] that targets are predicted from, the targets, and
        whose they are (index in `examples`), int64 [label tokens] each.
        """
        lengths = [len(example.tokens) for example in examples]
        hidden = hidden_states(model, [token for example in examples for token in example.tokens], lengths, self.device)
        places, targets, owners = self._targets(examples)
        return hidden[0, places], targets, owners

    def _targets(self, examples: Sequence[Example]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Where to predict from, what, and for which example; int64 [label tokens] each."""
        found: list[tuple[int, int, int]] = []
        start = 0
        for owner, example in enumerate(examples):
            found += [
                (start + place - 1, example.tokens[place], owner)
                for place in range(1, len(example.tokens))
                if example.learned[place]
            ]
            start += len(example.tokens)
        places, targets, owners = torch.tensor(found, device=self.device).unbind(1)
        return places, targets, owners

    def score(self, examples: Sequence[Example], sums: Sequence[float], predicted: Sequence[int]) -> Metrics:
        return token_metrics(sum(self.weight(example) for example in examples), sums, predicted)


def token_metrics(tokens: int, sums: Sequence[float], hits: Sequence[int]) -> Metrics:
    """Metrics of an evaluation with `tokens` targets: the summed loss and the right tokens of each example."""
    loss = sum(sums) / tokens
    scores = {
        MetricName.EVAL_LOSS: loss,
        MetricName.EVAL_ROWS: float(len(sums)),
        MetricName.EVAL_TOKEN_ACCURACY: sum(hits) / tokens,
    }
    perplexity = metrics.perplexity(loss)
    return scores if perplexity is None else {**scores, MetricName.EVAL_PERPLEXITY: perplexity}


def _objective(setup: Setup) -> Supervised:
    wanted = setup.hyperparameters
    reader = ChatReader(setup.tokenizer, wanted.max_seq_length)
    return Supervised(reader, wanted.micro_batch_size * wanted.max_seq_length, setup.device)


METHOD = TrainingMethod(name=Method.SUPERVISED, objective=_objective, chat=True)
