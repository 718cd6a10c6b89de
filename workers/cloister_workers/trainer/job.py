# SPDX-License-Identifier: Apache-2.0
"""One job from its start message to its result.

1. validate: every row of every input is read and checked; the training rows are split
2. load and adapt the model, or the adapted version that the job starts from; put a checkpoint's state back
3. evaluate on the evaluation part, before
4. train
5. evaluate on the evaluation part, after
6. export, and hand over the result
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

import torch

from cloister_workers.errors import RowsRefused, TrainerError
from cloister_workers.protocol import (
    Checkpoint,
    DatasetRole,
    EvaluationPhase,
    FailureCode,
    FailureNumber,
    MetricName,
    Metrics,
    Progress,
    Result,
    Rows,
    Stage,
    StageStatus,
)
from cloister_workers.trainer.checkpoint import LoopState, fingerprint, load_checkpoint, save_checkpoint
from cloister_workers.trainer.dataset import Dataset, Reading, read_dataset
from cloister_workers.trainer.evaluate import evaluate
from cloister_workers.trainer.example import Example
from cloister_workers.trainer.export import export_bundle
from cloister_workers.trainer.layer import Layer, attach, finished, unpack_layer
from cloister_workers.trainer.loop import Parts, Trainee, train
from cloister_workers.trainer.model import load_causal, load_classifier, load_tokenizer
from cloister_workers.trainer.objectives import Objective
from cloister_workers.trainer.objectives.chat import ChatReader
from cloister_workers.trainer.objectives.classification import Classification
from cloister_workers.trainer.objectives.supervised import Supervised
from cloister_workers.trainer.optimiser import Optimiser
from cloister_workers.trainer.probe import check_packing
from cloister_workers.trainer.session import Session
from cloister_workers.trainer.spec import Method, TrainingSpec
from cloister_workers.trainer.split import split_rows

Inputs = Mapping[DatasetRole, BinaryIO]


@dataclass(frozen=True)
class Workplace:
    """Where a job runs: directories, device and clock (seconds)."""

    model_dir: str
    scratch: str
    device: torch.device
    clock: Callable[[], float] = time.monotonic


@dataclass(frozen=True)
class JobHooks:
    """The loop's hooks: the session's, and checkpoints made from the optimiser's state."""

    session: Session
    optimiser: Optimiser
    mark: str

    def poll(self, step: int) -> None:
        self.session.poll(step)

    def pause_wanted(self) -> bool:
        return self.session.pause_wanted()

    def progress(self, message: Progress) -> None:
        self.session.progress(message)

    def evaluated(self, phase: EvaluationPhase, step: int, metrics: Metrics) -> None:
        self.session.evaluated(phase, step, metrics)

    def checkpoint(self, state: LoopState, metrics: Metrics) -> None:
        descriptor = save_checkpoint(self.optimiser, state, self.mark)
        self.session.hand_over(Checkpoint(step=state.step, metrics=metrics), descriptor)


def run_job(spec: TrainingSpec, inputs: Inputs, place: Workplace, session: Session) -> None:
    """Run one job to its Result. Raises TrainerError, Cancelled or Paused; what it told before stands."""
    layer = unpack_layer(inputs[DatasetRole.LAYER], place.scratch) if DatasetRole.LAYER in inputs else None
    tokenizer = load_tokenizer(layer.tokenizer_dir(place.model_dir) if layer else place.model_dir, spec.method)
    with stage(session, Stage.VALIDATE):
        objective, parts = prepare(spec, inputs, tokenizer, place.device, session, layer.labels if layer else ())
    model = build_model(spec, place, objective, layer)
    optimiser = Optimiser(model, spec.hyperparameters.weight_decay, spec.hyperparameters.max_grad_norm)
    mark = fingerprint(spec, parts.training)
    trainee, hooks = Trainee(model, objective, optimiser), JobHooks(session, optimiser, mark)

    def measure(step: int) -> Metrics:
        batch = spec.hyperparameters.batch_size
        return evaluate(model, objective, parts.evaluation, batch, lambda: session.poll(step))

    state = LoopState()
    if DatasetRole.CHECKPOINT in inputs:
        state = load_checkpoint(inputs[DatasetRole.CHECKPOINT], optimiser, mark)
    with stage(session, Stage.EVALUATE):
        if state.step == 0:
            state = replace(state, before=tuple(measure(0).items()))
        session.evaluated(EvaluationPhase.BEFORE, 0, dict(state.before))
    with stage(session, Stage.TRAIN):
        state = train(spec, trainee, parts, hooks, place.clock, state)
    with stage(session, Stage.EVALUATE):
        model = finished(model, layer)
        after = measure(state.step)
        session.evaluated(EvaluationPhase.AFTER, state.step, after)
    with stage(session, Stage.EXPORT):
        name = (layer.base_name if layer else "") or spec.model
        descriptor = export_bundle(model, tokenizer, name, place.scratch)
    final = {MetricName.LOSS: state.loss, **after}
    session.hand_over(Result(step=state.step, metrics=final, trained_tokens=state.trained_tokens), descriptor)


def build_model(
    spec: TrainingSpec, place: Workplace, objective: Objective, layer: Layer | None = None
) -> torch.nn.Module:
    """The seeded, loaded and adapted model; torch's random state is left as `get_peft_model` leaves it."""
    torch.manual_seed(spec.seed)
    model_dir = layer.model_dir(place.model_dir) if layer else place.model_dir
    if isinstance(objective, Classification):
        pad = int(objective.tokenizer.pad_token_id)
        base = load_classifier(model_dir, objective.labels, pad, place.device)
    else:
        base = load_causal(model_dir, place.device)
        check_packing(base.model, place.device)
    return attach(base, layer, spec.adapter, spec.method)


def prepare(
    spec: TrainingSpec,
    inputs: Inputs,
    tokenizer: Any,  # noqa: ANN401
    device: torch.device,
    session: Session,
    known: tuple[str, ...] = (),
) -> tuple[Objective, Parts]:
    """Read, check and split every input; `known` are the classes of a classifier that is trained on.

    Raises RowsRefused, and TrainerError for too few rows or labels.
    """
    reading = Reading(spec.data.max_rows, spec.data.reject_duplicates, lambda: session.poll(0))
    seen: set[bytes] = set()
    objective = _objective(spec, tokenizer, device, known)
    training = _read(DatasetRole.TRAINING, inputs, objective, reading, seen, session)
    labels = tuple(sorted({example.label for example in training.examples}))
    if isinstance(objective, Classification):
        if len(labels) < 2:
            raise TrainerError(
                FailureCode.TOO_FEW_LABELS,
                f"the training rows have {len(labels)} labels; classification needs 2 or more",
                {FailureNumber.LABELS: len(labels)},
            )
        objective = replace(objective, labels=known or labels)
    validation = _read(DatasetRole.VALIDATION, inputs, objective, reading, seen, session)
    evaluation = _read(DatasetRole.EVALUATION, inputs, objective, reading, seen, session)
    parts = _split(spec, inputs, training, validation, evaluation)
    classes = len(objective.labels) if isinstance(objective, Classification) else 0
    for dataset, used in zip(
        (training, validation, evaluation), (parts.training, parts.validation, parts.evaluation), strict=True
    ):
        session.tell(_rows(dataset, used, classes))
    if not parts.training:
        raise TrainerError(
            FailureCode.TOO_FEW_ROWS,
            "no row is left to train on after the split; give more rows or smaller fractions",
            {FailureNumber.ROWS: training.total},
        )
    return objective, parts


def _objective(spec: TrainingSpec, tokenizer: Any, device: torch.device, known: tuple[str, ...]) -> Objective:  # noqa: ANN401
    wanted = spec.hyperparameters
    if spec.method is Method.CLASSIFICATION:
        return Classification(tokenizer, wanted.max_seq_length, wanted.micro_batch_size, device, known)
    reader = ChatReader(tokenizer, wanted.max_seq_length)
    return Supervised(reader, wanted.micro_batch_size * wanted.max_seq_length, device)


def _read(
    role: DatasetRole,
    inputs: Inputs,
    objective: Objective,
    reading: Reading,
    seen: set[bytes],
    session: Session,
) -> Dataset:
    if role not in inputs:
        return Dataset(role, (), 0, 0, ())
    dataset = read_dataset(role, inputs[role], objective, reading, seen)
    if dataset.problems:
        session.tell(dataset.row_errors())
        raise RowsRefused(
            FailureCode.ROWS_INVALID,
            f"{len(dataset.problems)} rows of the {role} dataset are not usable; mend them and seal it again",
            {FailureNumber.TOTAL_ERRORS: len(dataset.problems)},
        )
    return dataset


def _split(spec: TrainingSpec, inputs: Inputs, training: Dataset, validation: Dataset, evaluation: Dataset) -> Parts:
    """Parts that share no input: a row that a held-out file repeats is not trained on."""
    held_out = {example.group for example in evaluation.examples}
    checked = _outside(validation.examples, held_out)
    rest = _outside(training.examples, held_out | {example.group for example in checked})
    split = split_rows(
        [example.group for example in rest],
        spec.seed,
        0.0 if DatasetRole.VALIDATION in inputs else spec.data.validation_fraction,
        0.0 if DatasetRole.EVALUATION in inputs else spec.data.evaluation_fraction,
    )
    return Parts(
        training=tuple(rest[index] for index in split.training),
        validation=checked or tuple(rest[index] for index in split.validation),
        evaluation=evaluation.examples or tuple(rest[index] for index in split.evaluation),
    )


def _outside(examples: tuple[Example, ...], taken: set[bytes]) -> tuple[Example, ...]:
    return tuple(example for example in examples if example.group not in taken)


def _rows(dataset: Dataset, used: tuple[Example, ...], classes: int) -> Rows:
    return Rows(
        dataset=dataset.role,
        total=dataset.total,
        used=len(used),
        duplicates=dataset.duplicates,
        truncated=sum(example.truncated for example in used),
        tokens=sum(len(example.tokens) for example in used),
        labels=classes,
    )


@contextmanager
def stage(session: Session, name: Stage) -> Iterator[None]:
    """Tell start and finish; a stage that raises is not finished."""
    session.stage(name, StageStatus.STARTED)
    yield
    session.stage(name, StageStatus.FINISHED)
