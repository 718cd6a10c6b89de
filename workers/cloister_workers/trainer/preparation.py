# SPDX-License-Identifier: Apache-2.0
"""What a job makes of its inputs before it trains: every row read and checked, and the rows split into parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from cloister_workers.errors import SpecError, TrainerError
from cloister_workers.messages import DatasetRole, FailureCode, FailureNumber, RowReason, Rows, SpecField
from cloister_workers.trainer.dataset import Dataset, Reading, read_dataset
from cloister_workers.trainer.example import Example
from cloister_workers.trainer.layer import Layer, model_dir
from cloister_workers.trainer.loop import Parts
from cloister_workers.trainer.method import Setup, TrainingMethod
from cloister_workers.trainer.model import load_config
from cloister_workers.trainer.objectives import Objective
from cloister_workers.trainer.place import Inputs, Workplace
from cloister_workers.trainer.replay import with_replay
from cloister_workers.trainer.session import Session
from cloister_workers.trainer.spec import Hyperparameters, TrainingSpec
from cloister_workers.trainer.split import groups_of, outside, split_examples

Pieces = tuple[Example, ...]
"""What one row became: one example, or those that a long row was cut into."""


def make_setup(spec: TrainingSpec, tokenizer: Any, place: Workplace, layer: Layer | None) -> Setup:  # noqa: ANN401
    """What the method makes its objective from."""
    folder = model_dir(layer, place.model_dir)
    return Setup(
        tokenizer=tokenizer,
        config=load_config(folder),
        hyperparameters=_first_try(spec.hyperparameters),
        settings=spec.settings,
        device=place.device,
        seed=spec.seed,
        too_long=spec.data.too_long,
        labels=layer.labels if layer else (),
        problem_type=layer.problem_type if layer else "",
        adapter=spec.adapter,
        continued=layer is not None,
        model_dir=folder,
    )


def _first_try(wanted: Hyperparameters) -> Hyperparameters:
    """A micro batch that is to be found starts as a whole batch."""
    return wanted if wanted.micro_batch_size else replace(wanted, micro_batch_size=wanted.batch_size)


def prepare(
    spec: TrainingSpec, method: TrainingMethod[Any], setup: Setup, inputs: Inputs, session: Session
) -> tuple[Objective, Parts]:
    """Read, check and split every input.

    Raises RowsRefused, and TrainerError for too few rows or labels.
    """
    reading = Reading(spec.data.max_rows, spec.data.reject_duplicates, lambda: session.poll(0))
    seen: set[bytes] = set()
    objective: Objective = method.objective(setup)
    training = _read(DatasetRole.TRAINING, inputs, objective, reading, seen, session)
    examples = _examples(training)
    objective = method.fitted(objective, examples)
    validation, evaluation = (
        _read(role, inputs, objective, reading, seen, session)
        for role in (DatasetRole.VALIDATION, DatasetRole.EVALUATION)
    )
    earlier = spec.data.replay_split
    reading = replace(reading, max_rows=earlier.max_rows) if earlier else reading
    replay = _read(DatasetRole.REPLAY, inputs, objective, reading, seen, session)
    parts = _split(spec, inputs, examples, _examples(validation), _examples(evaluation))
    parts, repeated = with_replay(parts, _examples(replay), spec.seed, spec.data)
    if not parts.training:
        raise TrainerError(
            FailureCode.TOO_FEW_ROWS,
            "no row is left to train on after the split; give more rows or smaller fractions",
            {FailureNumber.ROWS: training.total},
        )
    wanted = spec.hyperparameters
    if not parts.validation and (wanted.keep_best or wanted.early_stop_patience):
        raise SpecError(
            FailureCode.SPEC_INVALID,
            SpecField.KEEP_BEST if wanted.keep_best else SpecField.EARLY_STOP_PATIENCE,
            "keep_best and early_stop_patience go by validation rows, and there are none; name a validation_dataset or "
            "give validation_fraction",
        )
    classes = len(getattr(objective, "labels", ()))
    news = parts.training[: len(parts.training) - len(repeated)]
    for dataset, used in (
        (training, news),
        (validation, parts.validation),
        (evaluation, parts.evaluation),
        (replay, repeated),
    ):
        if dataset.role in inputs or dataset.role is not DatasetRole.REPLAY:
            session.tell(_rows(dataset, used, classes))
    return objective, parts


def _read(
    role: DatasetRole,
    inputs: Inputs,
    objective: Objective,
    reading: Reading,
    seen: set[bytes],
    session: Session,
) -> Dataset[Pieces]:
    if role not in inputs:
        return Dataset(role)

    def pieces(rows: Sequence[dict[str, object]]) -> list[Pieces | RowReason]:
        return [(made,) if isinstance(made, Example) else made for made in objective.read(rows)]

    dataset = read_dataset(role, inputs[role], pieces, lambda _, made: made[0].digest, reading, seen)
    dataset.refuse(session.tell)
    return dataset


def _examples(dataset: Dataset[Pieces]) -> tuple[Example, ...]:
    """In the order of rows and pieces, each with where it comes from."""
    replayed = dataset.role is DatasetRole.REPLAY
    return tuple(replace(piece, row=given.number, replayed=replayed) for given in dataset.rows for piece in given.value)


def _split(
    spec: TrainingSpec,
    inputs: Inputs,
    training: tuple[Example, ...],
    validation: tuple[Example, ...],
    evaluation: tuple[Example, ...],
) -> Parts:
    """Parts that share no input: a row that a held-out file repeats is not trained on.

    The split comes first: which rows are held out does not depend on what other files repeat.
    """
    checked = outside(validation, groups_of(evaluation))
    taken = groups_of(evaluation, checked)
    split = split_examples(
        training,
        spec.seed,
        0.0 if DatasetRole.VALIDATION in inputs else spec.data.validation_fraction,
        0.0 if DatasetRole.EVALUATION in inputs else spec.data.evaluation_fraction,
    )
    return Parts(
        training=outside(split.training, taken),
        validation=checked or outside(split.validation, taken),
        evaluation=evaluation or outside(split.evaluation, taken),
    )


def _rows(dataset: Dataset[Pieces], used: tuple[Example, ...], classes: int) -> Rows:
    return Rows(
        dataset=dataset.role,
        total=dataset.total,
        used=sum(example.piece == 0 for example in used),
        duplicates=dataset.duplicates,
        truncated=sum(example.truncated for example in used),
        tokens=sum(len(example.tokens) for example in used),
        labels=classes,
    )
