# SPDX-License-Identifier: Apache-2.0
"""The stages of a training job from its model to its result, whichever way it is trained: evaluate, train, evaluate,
export.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import torch

from cloister_workers.protocol import (
    Checkpoint,
    DatasetRole,
    EvaluationPhase,
    MetricName,
    Metrics,
    OddRows,
    Progress,
    Result,
    Stage,
)
from cloister_workers.trainer.bundle import write_bundle
from cloister_workers.trainer.checkpoint import LoopState, fingerprint, load_checkpoint, save_checkpoint
from cloister_workers.trainer.layer import Layer, finished
from cloister_workers.trainer.loop import Parts
from cloister_workers.trainer.optimiser import Optimiser
from cloister_workers.trainer.place import stage
from cloister_workers.trainer.running import Job
from cloister_workers.trainer.session import Session
from cloister_workers.trainer.spikes import RowLoss


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


@dataclass(frozen=True)
class Begun:
    """A training job whose rows are read and whose model is loaded and adapted."""

    job: Job
    layer: Layer | None
    """The weights that the job starts from, beside the base model's."""
    model: torch.nn.Module
    hooks: JobHooks
    state: LoopState


class Course(Protocol):
    """What a way to train does in the stages."""

    def measure(self, model: torch.nn.Module, step: int) -> Metrics:
        """Metrics on what is held out, before (step 0) and after training. Raises Cancelled."""
        ...

    def train(self, begun: Begun) -> LoopState:
        """To the end. Raises Cancelled, Paused, TrainerError."""
        ...

    def files(self, model: torch.nn.Module, name: str) -> Mapping[str, bytes]:
        """The version's files by name; `name` is the base model's."""
        ...


def begin(job: Job, layer: Layer | None, parts: Parts, model: torch.nn.Module) -> Begun:
    """With an optimiser on the model's trained tensors, and a checkpoint's state put back where the job has one.

    Raises TrainerError CHECKPOINT_INVALID.
    """
    wanted = job.spec.hyperparameters
    optimiser = Optimiser(model, wanted.weight_decay, wanted.max_grad_norm)
    mark = fingerprint(job.spec, parts.training)
    state = LoopState()
    if DatasetRole.CHECKPOINT in job.inputs:
        state = load_checkpoint(job.inputs[DatasetRole.CHECKPOINT], optimiser, mark)
    return Begun(job, layer, model, JobHooks(job.session, optimiser, mark), state)


def run_stages(begun: Begun, course: Course) -> None:
    """Evaluate, train, evaluate on the same rows, export and hand over the Result; raises as the course does."""
    spec, session, state = begun.job.spec, begun.job.session, begun.state
    with stage(session, Stage.EVALUATE):
        if state.step == 0:
            state = replace(state, before=tuple(course.measure(begun.model, 0).items()))
        session.evaluated(EvaluationPhase.BEFORE, 0, dict(state.before))
    with stage(session, Stage.TRAIN):
        state = course.train(replace(begun, state=state))
    with stage(session, Stage.EVALUATE):
        model = finished(begun.model, begun.layer, spec.adapter)
        after = with_forgetting(dict(state.before), course.measure(model, state.step))
        session.evaluated(EvaluationPhase.AFTER, state.step, after)
    with stage(session, Stage.EXPORT):
        name = (begun.layer.base_name if begun.layer else "") or spec.model
        descriptor = write_bundle(course.files(model, name))
    final = {MetricName.LOSS: state.loss, **after}
    if state.micro_batch_size:
        final[MetricName.MICRO_BATCH_SIZE] = float(state.micro_batch_size)
    session.hand_over(Result(step=state.step, metrics=final, trained_tokens=state.trained_tokens), descriptor)


def with_forgetting(before: Metrics, after: Metrics) -> dict[MetricName, float]:
    """`after` with what was forgotten of the replay rows: by how much their loss rose."""
    name = MetricName.REPLAY_LOSS
    known = name in before and name in after
    return {**after, MetricName.FORGETTING: after[name] - before[name]} if known else dict(after)
