# SPDX-License-Identifier: Apache-2.0
"""Supervised fine-tuning of a causal model, loss on completions only, examples packed without padding.

A batch of a step is packed (best fit decreasing) into rows of micro_batch_size * max_seq_length tokens; each
is one forward pass. Token t is predicted from the hidden state at t-1 of the same example; a first token is
never a target. How rows become text is in `chat.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch

from cloister_workers.messages import Metrics, RowReason, SpecField
from cloister_workers.trainer import metrics
from cloister_workers.trainer.cross_entropy import token_hits, token_losses
from cloister_workers.trainer.decoder import hidden_states, output_head
from cloister_workers.trainer.example import Example, Outcome
from cloister_workers.trainer.generation import Sampler
from cloister_workers.trainer.method import Setup, TrainingMethod, load_packed
from cloister_workers.trainer.model import Base, load_sequence_to_sequence, positions
from cloister_workers.trainer.objectives.chat import ChatReader
from cloister_workers.trainer.objectives.sequence_to_sequence import SequenceToSequence
from cloister_workers.trainer.packing import best_fit_decreasing
from cloister_workers.trainer.spec import TRUNCATE, Method, check, read_settings
from cloister_workers.trainer.text_metrics import NO_METRICS, SCORES, answer_scores


class Reader(Protocol):
    """Turns one row into tokens with the learned ones marked."""

    @property
    def max_seq_length(self) -> int: ...

    @property
    def tokenizer(self) -> Any: ...  # noqa: ANN401 - transformers' own type is dynamic

    def read(self, row: dict[str, object]) -> Example | RowReason: ...


@dataclass(frozen=True)
class Supervised:
    """Prompt to completion, or the assistant's turns of a chat; with another reader, whatever it marks as learned."""

    reader: Reader
    row_tokens: int
    device: torch.device
    metrics: str = NO_METRICS
    """What generated answers are measured by: one of `text_metrics.SCORES`, or nothing."""
    max_new_tokens: int = 64

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

    def examine(
        self, model: torch.nn.Module, examples: Sequence[Example], before_batch: Callable[[], object]
    ) -> Metrics:
        """Metrics of the generated last answers; their prompts are all that stands before."""
        if self.metrics == NO_METRICS:
            return {}
        prompts, right = zip(*(_last_answer(example) for example in examples), strict=True)
        sampler = Sampler(model, self.reader.tokenizer, self.device, before_batch)
        return answer_scores(self.metrics, sampler, prompts, right, self.max_new_tokens)

    def score(self, examples: Sequence[Example], sums: Sequence[float], predicted: Sequence[int]) -> Metrics:
        return metrics.token_metrics(sum(self.weight(example) for example in examples), sums, predicted)


def _last_answer(example: Example) -> tuple[list[int], list[int]]:
    """The tokens before the last run of learned ones, and that run. A first token is always given, never learned."""
    end = example.learned.rindex(1) + 1
    start = max(1, example.learned.rfind(0, 0, end) + 1)
    return example.tokens[:start].tolist(), example.tokens[start:end].tolist()


@dataclass(frozen=True)
class Settings:
    """The method's own."""

    metrics: str = NO_METRICS
    max_new_tokens: int = 64

    def __post_init__(self) -> None:
        known = (NO_METRICS, *SCORES)
        check(self.metrics in known, SpecField.METRICS, f"one of {known}", self.metrics)
        check(1 <= self.max_new_tokens <= 8192, SpecField.MAX_NEW_TOKENS, "1 to 8192", self.max_new_tokens)


def _objective(setup: Setup) -> Supervised | SequenceToSequence:
    wanted, settings = setup.hyperparameters, read_settings(Settings, setup.settings)
    if setup.config.is_encoder_decoder:
        return SequenceToSequence(
            setup.tokenizer,
            wanted.max_seq_length,
            wanted.micro_batch_size,
            setup.device,
            max_target_length=min(
                wanted.max_seq_length, positions(setup.config, decoder=True) or wanted.max_seq_length
            ),
            truncate=setup.too_long == TRUNCATE,
            metrics=settings.metrics,
            max_new_tokens=settings.max_new_tokens,
        )
    reader = ChatReader(setup.tokenizer, wanted.max_seq_length, setup.too_long == TRUNCATE)
    return Supervised(
        reader,
        wanted.micro_batch_size * wanted.max_seq_length,
        setup.device,
        settings.metrics,
        settings.max_new_tokens,
    )


def _load(model_dir: str, objective: Supervised | SequenceToSequence, device: torch.device) -> Base:
    if isinstance(objective, SequenceToSequence):
        return load_sequence_to_sequence(model_dir, device)
    return load_packed(model_dir, objective, device)


METHOD = TrainingMethod(name=Method.SUPERVISED, objective=_objective, load=_load, padded=True, chat=True)
