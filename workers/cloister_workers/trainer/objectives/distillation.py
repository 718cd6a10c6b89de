# SPDX-License-Identifier: Apache-2.0
"""Distillation (Hinton et al. 2015, arXiv:1503.02531): a model learns the next-token distributions of another.

Rows are those of `supervised`, or of `language_model` where they have a `text`, or a `prompt` without an answer, which
is read as a text; both models predict the same learned tokens of them. The loss of a token is in `divergence.py`. The
teacher, the job's second model, is frozen, without dropout, and has the very tokens of the student. Measured, at
temperature 1: the divergence from the teacher in the direction that is learned, nats a token, and loss, perplexity and
right tokens on the rows themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from cloister_workers.errors import TrainerError
from cloister_workers.messages import FailureCode, MetricName, Metrics, RowReason, SpecField
from cloister_workers.trainer.adapt import attach_saved
from cloister_workers.trainer.cross_entropy import token_hits, token_losses
from cloister_workers.trainer.decoder import output_head
from cloister_workers.trainer.divergence import Mixture, Predictor
from cloister_workers.trainer.example import Example, Outcome
from cloister_workers.trainer.method import AuxiliaryModel, Settling, Setup, TrainingMethod, load_packed
from cloister_workers.trainer.metrics import token_metrics
from cloister_workers.trainer.model import load_tokenizer, positions
from cloister_workers.trainer.objectives.chat import ChatReader
from cloister_workers.trainer.objectives.language_model import CorpusReader, fitting
from cloister_workers.trainer.objectives.supervised import Supervised
from cloister_workers.trainer.spec import Method, check, read_settings

FORWARD, REVERSE = "forward", "reverse"


@dataclass(frozen=True)
class Settings:
    """The method's own, as the contract says them."""

    direction: str = FORWARD
    temperature: float = 1.0
    share: float = 1.0

    def __post_init__(self) -> None:
        known = (FORWARD, REVERSE)
        check(self.direction in known, SpecField.DIRECTION, f"one of {list(known)}", self.direction)
        check(0.01 <= self.temperature <= 100, SpecField.TEMPERATURE, "0.01 to 100", self.temperature)
        check(0 <= self.share <= 1, SpecField.SHARE, "0 to 1", self.share)


@dataclass(frozen=True)
class Distillation:
    """The teacher comes once the student is there (`settled`); before that, rows can be read."""

    likelihood: Supervised
    texts: CorpusReader
    mixture: Mixture
    too_long: str = ""
    teacher: torch.nn.Module | None = None

    def read(self, rows: Sequence[dict[str, object]]) -> list[RowReason | Example | tuple[Example, ...]]:
        return [self._read(row) for row in rows]

    def _read(self, row: dict[str, object]) -> RowReason | Example | tuple[Example, ...]:
        text = row if "text" in row else _bare_prompt(row)
        return fitting(self.texts.pieces(text), self.too_long) if text else self.likelihood.reader.read(row)

    def micro_batches(self, batch: Sequence[Example]) -> list[list[Example]]:
        return self.likelihood.micro_batches(batch)

    def with_micro_batch(self, size: int) -> Distillation:
        return replace(self, likelihood=self.likelihood.with_micro_batch(size))

    def weight(self, example: Example) -> int:
        return self.likelihood.weight(example)

    def outcome(self, model: torch.nn.Module, examples: Sequence[Example]) -> Outcome:
        """In training the mixture. Without gradients the cross-entropy, and of each example how many tokens were right
        and the divergence summed over its tokens, [n, 2].
        """
        if self.teacher is None:
            raise RuntimeError("the teacher is not loaded; settle the objective first")
        with torch.no_grad():
            taught, _, _ = self.likelihood.predictions(self.teacher, examples)
        states, targets, owners = self.likelihood.predictions(model, examples)
        student, teacher = Predictor(states, output_head(model)), Predictor(taught, output_head(self.teacher))
        device, count = states.device, len(examples)
        if torch.is_grad_enabled():
            losses = self.mixture.losses(student, teacher, targets)
            return Outcome(
                torch.zeros(count, device=device).index_add(0, owners, losses), torch.zeros(count, 2, device=device)
            )
        plain = replace(self.mixture, temperature=1.0, share=1.0)
        found = [
            token_losses(states, student.head, targets),
            token_hits(states, student.head, targets).float(),
            plain.losses(student, teacher, targets),
        ]
        sums = torch.zeros(count, 3, device=device).index_add(0, owners, torch.stack(found, 1))
        return Outcome(sums[:, 0], sums[:, 1:])

    def score(
        self, examples: Sequence[Example], sums: Sequence[float], predicted: Sequence[Sequence[float]]
    ) -> Metrics:
        tokens = sum(self.weight(example) for example in examples)
        scores = token_metrics(tokens, sums, [round(hits) for hits, _ in predicted])
        return {**scores, MetricName.EVAL_KL: sum(apart for _, apart in predicted) / tokens}


def _bare_prompt(row: dict[str, object]) -> dict[str, object] | None:
    """A prompt without an answer as a row of text: the teacher says something of each of its tokens."""
    answered = any(name in row for name in ("completion", "messages", "source"))
    return None if answered or "prompt" not in row else {"text": row["prompt"]}


def _objective(setup: Setup) -> Distillation:
    settings, longest = read_settings(Settings, setup.settings), setup.longest
    reader = ChatReader(setup.tokenizer, longest)
    return Distillation(
        Supervised(reader, setup.hyperparameters.micro_batch_size * longest, setup.device),
        CorpusReader(setup.tokenizer, longest),
        Mixture(settings.temperature, settings.share, settings.direction == REVERSE),
        setup.too_long,
    )


def _settled(objective: Distillation, settling: Settling) -> Distillation:
    named = settling.auxiliary()
    settling.poll()
    _check_tokenizer(objective.texts.tokenizer, named)
    # An adapter is made with random numbers before its weights are loaded; the student's stream must not notice.
    with torch.random.fork_rng(devices=[settling.device] if settling.device.type == "cuda" else []):
        base = load_packed(named.folder, objective, settling.device)
        teacher = attach_saved(base, Path(named.adapter), 0.0) if named.adapter else base.model
    _check_positions(teacher, settling.examples)
    return replace(objective, teacher=teacher.requires_grad_(False).eval())


def _check_tokenizer(ours: Any, named: AuxiliaryModel) -> None:  # noqa: ANN401 - transformers' own type is dynamic
    own = named.adapter and (Path(named.adapter) / "tokenizer.json").is_file()
    theirs = load_tokenizer(named.adapter if own else named.folder)
    if ours.get_vocab() != theirs.get_vocab():
        raise _invalid(
            f"its tokenizer ({len(theirs)} tokens) is not the student's ({len(ours)} tokens); name a teacher of the "
            "student's family"
        )


def _check_positions(teacher: Any, examples: Sequence[Example]) -> None:  # noqa: ANN401
    table = positions(teacher.config)
    longest = max((len(example.tokens) for example in examples), default=0)
    if table is not None and longest > table:
        raise _invalid(f"it has {table} positions, the rows have up to {longest} tokens; give max_seq_length {table}")


def _invalid(why: str) -> TrainerError:
    return TrainerError(FailureCode.MODEL_INVALID, f"the teacher cannot be used: {why}")


METHOD = TrainingMethod(name=Method.DISTILLATION, objective=_objective, settled=_settled, chat=True)
