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
from cloister_workers.trainer.catalogue import training_method
from cloister_workers.trainer.checkpoint import LoopState, fingerprint, load_checkpoint, save_checkpoint
from cloister_workers.trainer.evaluate import evaluate, examine
from cloister_workers.trainer.fitting import fit_micro_batch, resized
from cloister_workers.trainer.layer import Layer, attach, finished, weights_layer
from cloister_workers.trainer.loop import Parts, Trainee, train
from cloister_workers.trainer.method import Settling
from cloister_workers.trainer.objectives import Objective
from cloister_workers.trainer.optimiser import Optimiser
from cloister_workers.trainer.place import Inputs, Workplace, auxiliary_model, stage
from cloister_workers.trainer.preparation import make_setup, prepare
from cloister_workers.trainer.session import Session
from cloister_workers.trainer.spec import TrainingSpec
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
