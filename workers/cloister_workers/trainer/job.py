# SPDX-License-Identifier: Apache-2.0
"""One training job from its start message to its result; what differs between methods is in `objectives/`.

1. validate: every row of every input is read and checked; the training rows are split, replay rows mixed in
2. load and adapt the model, or the adapted version that the job starts from; let the objective look at it; put a
   checkpoint's state back
3. evaluate on the evaluation part, and on held-out replay rows, before
4. train
5. evaluate on the same rows, after
6. export, and hand over the result
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from cloister_workers.errors import RowsRefused, SpecError, TrainerError
from cloister_workers.protocol import (
    Checkpoint,
    DatasetRole,
    EvaluationPhase,
    FailureCode,
    FailureNumber,
    MetricName,
    Metrics,
    OddRows,
    Progress,
    Result,
    Rows,
    SpecField,
    Stage,
)
from cloister_workers.trainer.bundle import write_bundle
from cloister_workers.trainer.catalogue import training_method
from cloister_workers.trainer.checkpoint import LoopState, fingerprint, load_checkpoint, save_checkpoint
from cloister_workers.trainer.dataset import Dataset, Reading, read_dataset
from cloister_workers.trainer.evaluate import evaluate, examine
from cloister_workers.trainer.example import Example
from cloister_workers.trainer.fitting import fit_micro_batch, resized
from cloister_workers.trainer.layer import Layer, attach, finished, weights_layer
from cloister_workers.trainer.loop import Parts, Trainee, train
from cloister_workers.trainer.method import Settling, Setup, TrainingMethod
from cloister_workers.trainer.model import load_config
from cloister_workers.trainer.objectives import Objective
from cloister_workers.trainer.optimiser import Optimiser
from cloister_workers.trainer.place import Inputs, Workplace, auxiliary_model, stage
from cloister_workers.trainer.replay import with_replay
from cloister_workers.trainer.session import Session
from cloister_workers.trainer.spec import Hyperparameters, TrainingSpec
from cloister_workers.trainer.spikes import RowLoss
from cloister_workers.trainer.split import split_rows


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

    def notice(self, step: int, rows: tuple[RowLoss, ...]) -> None:
        """Say which rows made a step's loss stand out."""
        for role, replayed in ((DatasetRole.TRAINING, False), (DatasetRole.REPLAY, True)):
            numbers = tuple(entry.row for entry in rows if entry.replayed is replayed and entry.row)
            if numbers:
                self.session.tell(OddRows(dataset=role, step=step, rows=numbers))

    def checkpoint(self, state: LoopState, metrics: Metrics) -> None:
        descriptor = save_checkpoint(self.optimiser, state, self.mark)
        self.session.hand_over(Checkpoint(step=state.step, metrics=metrics), descriptor)


def run_job(spec: TrainingSpec, inputs: Inputs, place: Workplace, session: Session) -> None:
    """Run one job to its Result. Raises TrainerError, Cancelled or Paused; what it told before stands."""
    method = training_method(spec.method)
    layer = weights_layer(inputs, place.scratch)
    with stage(session, Stage.VALIDATE):
        own = method.vocabulary(spec, place.model_dir, inputs)
        folder = layer.tokenizer_dir(place.model_dir) if layer else place.model_dir
        tokenizer, inputs = own or (method.tokenizer(folder), inputs)
        setup = make_setup(spec, tokenizer, place, layer)
        objective, parts = prepare(spec, method, setup, inputs, session)
    model = build_model(spec, place, objective, layer)
    objective = method.settled(objective, _settling(model, parts, inputs, place, session))
    optimiser = Optimiser(model, spec.hyperparameters.weight_decay, spec.hyperparameters.max_grad_norm)
    mark = fingerprint(spec, parts.training)
    state = LoopState()
    if DatasetRole.CHECKPOINT in inputs:
        state = load_checkpoint(inputs[DatasetRole.CHECKPOINT], optimiser, mark)
    if not spec.hyperparameters.micro_batch_size:
        state = _fitted(state, model, objective, parts, spec, session)
        objective = resized(objective, state.micro_batch_size)
    trainee, hooks = Trainee(model, objective, optimiser), JobHooks(session, optimiser, mark)
    exam = Exam(objective, parts, spec.hyperparameters.batch_size, session)
    with stage(session, Stage.EVALUATE):
        if state.step == 0:
            state = replace(state, before=tuple(exam.measure(model, 0).items()))
        session.evaluated(EvaluationPhase.BEFORE, 0, dict(state.before))
    with stage(session, Stage.TRAIN):
        state = train(spec, trainee, parts, hooks, place.clock, state, notice=hooks.notice)
    with stage(session, Stage.EVALUATE):
        model = finished(model, layer, spec.adapter)
        after = with_forgetting(dict(state.before), exam.measure(model, state.step))
        session.evaluated(EvaluationPhase.AFTER, state.step, after)
    with stage(session, Stage.EXPORT):
        name = (layer.base_name if layer else "") or spec.model
        descriptor = write_bundle(method.files(objective, model, tokenizer, name, place.scratch))
    final = {MetricName.LOSS: state.loss, **after}
    if state.micro_batch_size:
        final[MetricName.MICRO_BATCH_SIZE] = float(state.micro_batch_size)
    session.hand_over(Result(step=state.step, metrics=final, trained_tokens=state.trained_tokens), descriptor)


def _fitted(
    state: LoopState, model: torch.nn.Module, objective: Objective, parts: Parts, spec: TrainingSpec, session: Session
) -> LoopState:
    """With the micro batch that memory takes, unless a checkpoint brings the one of an earlier host."""
    if state.micro_batch_size:
        return state
    batch = spec.hyperparameters.batch_size
    size = fit_micro_batch(model, objective, parts.training, batch, lambda: session.poll(0))
    return replace(state, micro_batch_size=size)


@dataclass(frozen=True)
class Exam:
    """What is asked of the model before and after training: the same rows, in the same order."""

    objective: Objective
    parts: Parts
    batch_size: int
    session: Session

    def measure(self, model: torch.nn.Module, step: int) -> dict[MetricName, float]:
        """Metrics on the evaluation part, and as `replay_*` on held-out replay rows. Raises Cancelled."""

        def poll() -> None:
            self.session.poll(step)

        found = dict(examine(model, self.objective, self.parts.evaluation, self.batch_size, poll))
        earlier = evaluate(model, self.objective, self.parts.replay, self.batch_size, poll)
        return found | {REPLAYED[name]: value for name, value in earlier.items() if name in REPLAYED}


REPLAYED = {
    MetricName.EVAL_LOSS: MetricName.REPLAY_LOSS,
    MetricName.EVAL_ROWS: MetricName.REPLAY_ROWS,
    MetricName.EVAL_ACCURACY: MetricName.REPLAY_ACCURACY,
    MetricName.EVAL_PERPLEXITY: MetricName.REPLAY_PERPLEXITY,
}


def with_forgetting(before: Metrics, after: Metrics) -> dict[MetricName, float]:
    """`after` with what was forgotten of the replay rows: by how much their loss rose."""
    name = MetricName.REPLAY_LOSS
    known = name in before and name in after
    return {**after, MetricName.FORGETTING: after[name] - before[name]} if known else dict(after)


def make_setup(spec: TrainingSpec, tokenizer: Any, place: Workplace, layer: Layer | None) -> Setup:  # noqa: ANN401
    """What the method makes its objective from."""
    return Setup(
        tokenizer=tokenizer,
        config=load_config(layer.model_dir(place.model_dir) if layer else place.model_dir),
        hyperparameters=_first_try(spec.hyperparameters),
        settings=spec.settings,
        device=place.device,
        seed=spec.seed,
        too_long=spec.data.too_long,
        labels=layer.labels if layer else (),
        problem_type=layer.problem_type if layer else "",
        adapter=spec.adapter,
        continued=layer is not None,
        model_dir=layer.model_dir(place.model_dir) if layer else place.model_dir,
    )


def _first_try(wanted: Hyperparameters) -> Hyperparameters:
    """A micro batch that is to be found starts as a whole batch."""
    return wanted if wanted.micro_batch_size else replace(wanted, micro_batch_size=wanted.batch_size)


def build_model(
    spec: TrainingSpec, place: Workplace, objective: Objective, layer: Layer | None = None
) -> torch.nn.Module:
    """The seeded, loaded and adapted model; torch's random state is left as `get_peft_model` leaves it."""
    torch.manual_seed(spec.seed)
    model_dir = layer.model_dir(place.model_dir) if layer else place.model_dir
    base = training_method(spec.method).load(model_dir, objective, place.device)
    return attach(base, layer, spec.adapter)


def _settling(model: torch.nn.Module, parts: Parts, inputs: Inputs, place: Workplace, session: Session) -> Settling:
    examples = (*parts.training, *parts.validation, *parts.evaluation, *parts.replay)
    return Settling(model, examples, lambda: auxiliary_model(inputs, place), lambda: session.poll(0), place.device)


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
    objective = method.fitted(objective, training.examples)
    validation = _read(DatasetRole.VALIDATION, inputs, objective, reading, seen, session)
    evaluation = _read(DatasetRole.EVALUATION, inputs, objective, reading, seen, session)
    replay = _read(DatasetRole.REPLAY, inputs, objective, reading, seen, session)
    parts = _split(spec, inputs, training, validation, evaluation)
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
    parts, repeated = with_replay(parts, replay.examples, spec.seed, spec.data)
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
        used=sum(example.piece == 0 for example in used),
        duplicates=dataset.duplicates,
        truncated=sum(example.truncated for example in used),
        tokens=sum(len(example.tokens) for example in used),
        labels=classes,
    )
