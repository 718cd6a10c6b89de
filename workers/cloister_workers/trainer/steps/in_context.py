# SPDX-License-Identifier: Apache-2.0
"""In-context learning: examples chosen from the training rows become a layer that is shown before every question.

    random    `shots` examples drawn by the seed
    best      of `draws` such draws, the one under which the right answers of the validation rows lose least
    nearest   for each question the `shots` examples with the questions nearest to it, by the auxiliary model

Before is zero-shot: the start with its weights and index, without demonstrations of its own. After is with the new
ones. Both are measured on the evaluation part: loss of the right answers, exact match and F1 of generated ones. A
question is never shown an example of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from cloister_workers.errors import TrainerError
from cloister_workers.messages import (
    EvaluationPhase,
    FailureCode,
    FailureNumber,
    MetricName,
    Result,
    RowReason,
    SpecField,
    Stage,
)
from cloister_workers.trainer.bundle import write_bundle
from cloister_workers.trainer.example import Example
from cloister_workers.trainer.method import TrainingMethod
from cloister_workers.trainer.objectives import Objective
from cloister_workers.trainer.order import data_order
from cloister_workers.trainer.place import Inputs, Workplace, stage
from cloister_workers.trainer.preparation import make_setup, prepare
from cloister_workers.trainer.running import Job
from cloister_workers.trainer.session import Session
from cloister_workers.trainer.spec import Method, TrainingSpec, check, read_settings
from cloister_workers.trainer.stack.demonstrations import Demonstrations, Selection
from cloister_workers.trainer.stack.encoder import Encoder
from cloister_workers.trainer.stack.exam import Exam, answering, flattened
from cloister_workers.trainer.stack.layers import Stack, encoder_of, job_encoder, read_stack
from cloister_workers.trainer.stack.shots import Shot, read_shot
from cloister_workers.trainer.steps import JobStep


@dataclass(frozen=True, kw_only=True)
class Settings:
    """`method.in_context` of the specification."""

    selection: str = "best"
    shots: int = 4
    draws: int = 8
    max_seq_length: int = 1024
    max_new_tokens: int = 64

    def __post_init__(self) -> None:
        known = self.selection in set(Selection)
        check(known, SpecField.SELECTION, f"one of {', '.join(Selection)}", self.selection)
        check(1 <= self.shots <= 100, SpecField.SHOTS, "1 to 100", self.shots)
        check(1 <= self.draws <= 1000, SpecField.DRAWS, "1 to 1000", self.draws)
        room = self.max_seq_length - self.max_new_tokens
        check(room >= 1, SpecField.MAX_SEQ_LENGTH, "more than max_new_tokens", self.max_seq_length)


@dataclass(frozen=True)
class Gathering:
    """Reads rows as the supervised objective does, and keeps each as a question with its answer."""

    supervised: Objective
    chat: bool
    """Whether the model has a chat template of its own."""
    kept: dict[bytes, Shot] = field(default_factory=dict)
    """By the digest of the row's example."""

    def read(self, rows: Sequence[dict[str, object]]) -> list[Example | RowReason]:
        """One example or reason per row."""
        return [self._read(row) for row in rows]

    def shots(self, examples: Sequence[Example]) -> tuple[Shot, ...]:
        """The rows that these examples were made from."""
        return tuple(self.kept[example.digest] for example in examples)

    def _read(self, row: dict[str, object]) -> Example | RowReason:
        shot = read_shot(row, chat=self.chat)
        if isinstance(shot, RowReason):
            return shot
        (made,) = self.supervised.read([shot.row()])
        if isinstance(made, RowReason):
            return made
        (example,) = flattened([made])
        self.kept[example.digest] = shot
        return example


def run(spec: TrainingSpec, inputs: Inputs, place: Workplace, session: Session) -> None:
    """Run an in-context job to its Result. Raises TrainerError or Cancelled."""
    settings = read_settings(Settings, spec.settings)
    rule = Selection(settings.selection)
    start = replace(read_stack(inputs, place.scratch), demonstrations=None)
    job, task = Job(spec, inputs, place, session), answering(settings.max_seq_length, settings.max_new_tokens)
    with stage(session, Stage.VALIDATE):
        encoder = job_encoder(start, job) if rule is Selection.NEAREST else encoder_of(start, job)
        exam = Exam(task, start, encoder, job)
        gathering = Gathering(exam.objective(start), exam.chat)
        reading: TrainingMethod[Any] = TrainingMethod(name=Method.IN_CONTEXT, objective=lambda _: gathering)
        setup = make_setup(spec, None, place, start.weights)
        _, parts = prepare(spec, reading, setup, inputs, session)
        pool, held = gathering.shots(parts.training), gathering.shots(parts.evaluation)
        validation = gathering.shots(parts.validation)
        _check(settings, pool, validation)
    with stage(session, Stage.EVALUATE):
        before = exam.measure(start, [shot.row() for shot in held], held)
        session.evaluated(EvaluationPhase.BEFORE, 0, before)
    with stage(session, Stage.SELECT):
        if rule is Selection.NEAREST and encoder is not None:
            chosen = _nearest(settings, pool, encoder)
        else:
            chosen = _drawn(settings, pool, spec.seed, lambda draw: _loss(exam, start, draw, validation))
    with stage(session, Stage.EVALUATE):
        made = replace(start, demonstrations=chosen)
        after = exam.measure(made, [shot.row() for shot in held], held)
        session.evaluated(EvaluationPhase.AFTER, 0, after)
    with stage(session, Stage.EXPORT):
        descriptor = write_bundle(chosen.files())
    final = {**after, MetricName.SHOTS: float(min(settings.shots, len(chosen.examples)))}
    session.hand_over(Result(step=0, metrics=final, trained_tokens=0), descriptor)


def _check(settings: Settings, pool: Sequence[Shot], validation: Sequence[Shot]) -> None:
    """Raise TrainerError TOO_FEW_ROWS where the rule has too little to choose from."""
    if len(pool) < settings.shots:
        raise TrainerError(
            FailureCode.TOO_FEW_ROWS,
            f"{len(pool)} training rows are left to show, shots is {settings.shots}; give more rows or fewer shots",
            {FailureNumber.ROWS: len(pool)},
        )
    if settings.selection == Selection.BEST and not validation:
        raise TrainerError(
            FailureCode.TOO_FEW_ROWS,
            "selection best needs validation rows and there are none; name a validation dataset, raise "
            "validation_fraction, or choose random",
            {FailureNumber.ROWS: 0},
        )


def _drawn(
    settings: Settings,
    pool: Sequence[Shot],
    seed: int,
    loss: Callable[[Demonstrations], float],
) -> Demonstrations:
    """Examples drawn at random, or of several draws the one with the least loss; the earliest of equals."""
    rule = Selection(settings.selection)
    count = settings.draws if rule is Selection.BEST else 1
    orders = [data_order(seed, draw, len(pool))[: settings.shots] for draw in range(count)]
    draws = [Demonstrations(rule, settings.shots, tuple(pool[index] for index in order)) for order in orders]
    return min(draws, key=loss) if count > 1 else draws[0]


def _loss(exam: Exam, start: Stack, draw: Demonstrations, shots: Sequence[Shot]) -> float:
    rows = [shot.row() for shot in shots]
    metrics = exam.measure(replace(start, demonstrations=draw), rows, shots, losses_only=True)
    return metrics.get(MetricName.EVAL_LOSS, math.inf)


def _nearest(settings: Settings, pool: tuple[Shot, ...], encoder: Encoder) -> Demonstrations:
    vectors = encoder.questions([shot.asked for shot in pool]).half().cpu()
    return Demonstrations(Selection.NEAREST, settings.shots, pool, vectors, encoder.digest)


STEP = JobStep(name=Method.IN_CONTEXT, run=run)
