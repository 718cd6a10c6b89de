# SPDX-License-Identifier: Apache-2.0
"""Evaluation: the same rows asked of the base, of each layer alone, of the first layers together, and of the version.

What the rows ask for is `task`, a training method, with its own metrics. An index and demonstrations take part where
answers are texts: `supervised`, and `question_answering` by a model that writes, where they stand before the row's own
context. For other tasks they change nothing and are told as such. A row of `supervised` is one question with one answer
(`stack/shots.py`), of a chat the last one. No row is shown a demonstration with its own question.

1. validate: every row is read by the task's objective
2. evaluate: base (phase BEFORE), the first n layers for each n (LAYERS), the version (AFTER)
3. export: the report, with each layer alone besides
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cloister_workers.errors import SpecError
from cloister_workers.messages import (
    DatasetRole,
    EvaluationPhase,
    FailureCode,
    MetricName,
    Reported,
    RowReason,
    SpecField,
    Stage,
)
from cloister_workers.trainer.bundle import write_bundle
from cloister_workers.trainer.catalogue import training_method, training_methods
from cloister_workers.trainer.layer import LayerKind
from cloister_workers.trainer.model import load_config
from cloister_workers.trainer.objectives import Objective
from cloister_workers.trainer.objectives.preference_losses import KTO
from cloister_workers.trainer.place import Inputs, Workplace, stage
from cloister_workers.trainer.running import Job
from cloister_workers.trainer.session import Session
from cloister_workers.trainer.spec import Hyperparameters, Method, TrainingSpec, check, read_settings
from cloister_workers.trainer.stack.exam import Exam, Task, writes
from cloister_workers.trainer.stack.layers import Stack, encoder_of, read_stack
from cloister_workers.trainer.stack.reading import read_input
from cloister_workers.trainer.stack.report import Line, report_files
from cloister_workers.trainer.stack.shots import Shot
from cloister_workers.trainer.steps import JobStep
from cloister_workers.trainer.text_metrics import NO_METRICS

Kinds = tuple[LayerKind, ...]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """`method.evaluation` of the specification."""

    task: str = ""
    metrics: str = NO_METRICS
    batch_size: int = 16
    max_seq_length: int = 1024
    max_new_tokens: int = 64


def run(spec: TrainingSpec, inputs: Inputs, place: Workplace, session: Session) -> None:
    """Run an evaluation to its Reported. Raises TrainerError or Cancelled."""
    settings = read_settings(Settings, spec.settings)
    whole, job = read_stack(inputs, place.scratch), Job(spec, inputs, place, session)
    task = task_of(settings, load_config(whole.model_dir(place.model_dir)))
    with stage(session, Stage.VALIDATE):
        encoder = encoder_of(whole, job) if task.answers else None
        exam = Exam(task, whole, encoder, job)
        exam, rows, shots = _read(exam, job)
    with stage(session, Stage.EVALUATE):
        # In order of whose weights are in force: each model is loaded once.
        parts = sorted(parts_of(_effective(exam, whole)), key=lambda kinds: any(kind.is_weights for kind in kinds))
        measured = {kinds: exam.measure(whole.only(*kinds), rows, shots) for kinds in parts}
        session.evaluated(EvaluationPhase.BEFORE, 0, measured[()])
        for count in range(1, len(whole.kinds) + 1):
            told = measured[_effective(exam, whole.first(count))]
            session.evaluated(EvaluationPhase.LAYERS, 0, told, layers=count)
        after = measured[_effective(exam, whole)]
        session.evaluated(EvaluationPhase.AFTER, 0, after, layers=len(whole.kinds))
    with stage(session, Stage.EXPORT):
        lines = [
            Line(kinds, measured[tuple(k for k in kinds if k in _effective(exam, whole))])
            for kinds in parts_of(whole.kinds)
        ]
        descriptor = write_bundle(report_files(spec.model, settings.task, lines))
    session.hand_over(Reported(metrics=after, rows=int(after.get(MetricName.EVAL_ROWS, len(rows)))), descriptor)


def task_of(settings: Settings, config: Any) -> Task:  # noqa: ANN401 - transformers' own type is dynamic
    """The training method that the rows ask for, of the model with this configuration. Raises SpecError for a task that
    there is not.
    """
    names = sorted(training_methods())
    check(settings.task in names, SpecField.TASK, f"one of {', '.join(names)}", settings.task)
    method = training_method(Method(settings.task))
    wanted = Hyperparameters(
        batch_size=settings.batch_size,
        micro_batch_size=settings.batch_size if method.padded else 1,
        max_seq_length=settings.max_seq_length,
    )
    longest = settings.max_new_tokens
    if method.name is Method.SUPERVISED:
        own = {"metrics": settings.metrics, "max_new_tokens": longest}
        return Task(method, wanted, own, longest if settings.metrics != NO_METRICS else 0, answers=True)
    if method.name is Method.QUESTION_ANSWERING and writes(config):
        own = {"form": "generative", "max_answer_tokens": longest}
        return Task(method, wanted, own, longest, answers=True, context=True)
    return Task(method, wanted, {}, 0, answers=False)


def parts_of(kinds: Kinds) -> tuple[Kinds, ...]:
    """What is compared: nothing, each layer alone, the first two and so on up to all."""
    alone = tuple((kind,) for kind in kinds)
    return ((), *alone, *(kinds[:count] for count in range(2, len(kinds) + 1)))


def _effective(exam: Exam, stack: Stack) -> Kinds:
    """The layers that can change an answer to this task."""
    return tuple(kind for kind in stack.kinds if kind.is_weights or exam.task.answers)


def _of_form(exam: Exam, row: Mapping[str, object]) -> Exam:
    """The exam for rows like this one: preferences are pairs, or completions with a verdict, which kto reads. What kto
    compares with is a mean over a micro batch, so that is a whole batch.
    """
    task = exam.task
    if task.method.name is not Method.PREFERENCE or "completion" not in row:
        return exam
    wanted = replace(task.hyperparameters, micro_batch_size=task.hyperparameters.batch_size)
    return replace(exam, task=replace(task, hyperparameters=wanted, settings={"loss": KTO}))


def _read(exam: Exam, job: Job) -> tuple[Exam, list[dict[str, object]], list[Shot]]:
    """The exam in the form of its rows, told by the first; the rows; and the same as questions and answers where
    prompts are made for them. Raises RowsRefused.
    """
    if DatasetRole.EVALUATION not in job.inputs:
        raise SpecError(
            FailureCode.SPEC_INVALID, SpecField.EVALUATION_DATASET, "evaluation_dataset is missing; name one"
        )
    if exam.task.answers and not exam.task.context:
        shots = [given.value for given in read_input(DatasetRole.EVALUATION, job, exam.reader())]
        return exam, [shot.row() for shot in shots], shots
    objective = exam.objective(exam.whole)
    if not getattr(objective, "labels", True):
        raise SpecError(
            FailureCode.SPEC_INVALID,
            SpecField.TASK,
            f"task is {exam.task.method.name}, and the model has no classes; name a version that was trained for it",
        )

    reader = _FormReader(exam, objective)
    rows = [given.value for given in read_input(DatasetRole.EVALUATION, job, reader.read)]
    return reader.exam, rows, []


@dataclass
class _FormReader:
    """Lets rows through that the objective takes; the first of them says in which form they are."""

    exam: Exam
    objective: Objective
    begun: bool = False

    def read(self, rows: Sequence[dict[str, object]]) -> list[dict[str, object] | RowReason]:
        if rows and not self.begun:
            self.begun, formed = True, _of_form(self.exam, rows[0])
            if formed is not self.exam:
                self.exam, self.objective = formed, formed.objective(formed.whole)
        made = zip(rows, self.objective.read(rows), strict=True)
        return [found if isinstance(found, RowReason) else row for row, found in made]


STEP = JobStep(name=Method.EVALUATION, run=run)
