# SPDX-License-Identifier: Apache-2.0
"""One training job from its start message to its result; what differs between methods is in `objectives/`.

1. validate: every row of every input is read and checked; the training rows are split, replay rows mixed in
   (`preparation.py`)
2. load and adapt the model, or the adapted version that the job starts from; let the objective look at it; put a
   checkpoint's state back
3. evaluate on the evaluation part, and on held-out replay rows, before
4. train
5. evaluate on the same rows, after
6. export, and hand over the result (3 to 6: `stages.py`)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from cloister_workers.protocol import MetricName, Stage
from cloister_workers.trainer.catalogue import training_method
from cloister_workers.trainer.checkpoint import LoopState
from cloister_workers.trainer.evaluate import evaluate, examine
from cloister_workers.trainer.fitting import fit_micro_batch, resized
from cloister_workers.trainer.layer import Layer, attach, model_dir, tokenizer_dir, weights_layer
from cloister_workers.trainer.loop import Parts, Trainee, train
from cloister_workers.trainer.method import Settling, TrainingMethod
from cloister_workers.trainer.objectives import Objective
from cloister_workers.trainer.place import Inputs, Workplace, auxiliary_model, stage
from cloister_workers.trainer.preparation import make_setup, prepare
from cloister_workers.trainer.running import Job
from cloister_workers.trainer.session import Session
from cloister_workers.trainer.spec import TrainingSpec
from cloister_workers.trainer.stages import Begun, begin, run_stages


def run_job(spec: TrainingSpec, inputs: Inputs, place: Workplace, session: Session) -> None:
    """Run one job to its Result. Raises TrainerError, Cancelled or Paused; what it told before stands."""
    method = training_method(spec.method)
    layer = weights_layer(inputs, place.scratch)
    with stage(session, Stage.VALIDATE):
        own = method.vocabulary(spec, place.model_dir, inputs)
        tokenizer, inputs = own or (method.tokenizer(tokenizer_dir(layer, place.model_dir)), inputs)
        setup = make_setup(spec, tokenizer, place, layer)
        objective, parts = prepare(spec, method, setup, inputs, session)
    job = Job(spec, inputs, place, session)
    model = _model(job, method, objective, layer)
    objective = method.settled(objective, _settling(job, model, parts))
    begun = begin(job, layer, parts, model)
    if not spec.hyperparameters.micro_batch_size:
        begun = _fitted(begun, objective, parts)
        objective = resized(objective, begun.state.micro_batch_size)
    run_stages(begun, LoopCourse(job, method, objective, tokenizer, parts))


def _fitted(begun: Begun, objective: Objective, parts: Parts) -> Begun:
    """With the micro batch that memory takes, unless a checkpoint brings the one of an earlier host."""
    if begun.state.micro_batch_size:
        return begun
    batch = begun.job.spec.hyperparameters.batch_size
    size = fit_micro_batch(begun.model, objective, parts.training, batch, begun.job.poll)
    return replace(begun, state=replace(begun.state, micro_batch_size=size))


@dataclass(frozen=True)
class LoopCourse:
    """Training in the loop by a method's objective."""

    job: Job
    method: TrainingMethod[Any]
    objective: Objective
    tokenizer: Any
    parts: Parts

    def measure(self, model: torch.nn.Module, step: int) -> dict[MetricName, float]:
        """Metrics on the evaluation part, and as `replay_*` on held-out replay rows. Raises Cancelled."""
        size, poll = self.job.spec.hyperparameters.batch_size, partial(self.job.session.poll, step)
        found = dict(examine(model, self.objective, self.parts.evaluation, size, poll))
        earlier = evaluate(model, self.objective, self.parts.replay, size, poll)
        return found | {REPLAYED[name]: value for name, value in earlier.items() if name in REPLAYED}

    def train(self, begun: Begun) -> LoopState:
        """As `loop.train`."""
        hooks, trainee = begun.hooks, Trainee(begun.model, self.objective, begun.hooks.optimiser)
        clock = self.job.place.clock
        return train(self.job.spec, trainee, self.parts, hooks, clock, begun.state, notice=hooks.notice)

    def files(self, model: torch.nn.Module, name: str) -> Mapping[str, bytes]:
        """What the method exports."""
        return self.method.files(self.objective, model, self.tokenizer, name, self.job.place.scratch)


REPLAYED = {
    MetricName.EVAL_LOSS: MetricName.REPLAY_LOSS,
    MetricName.EVAL_ROWS: MetricName.REPLAY_ROWS,
    MetricName.EVAL_ACCURACY: MetricName.REPLAY_ACCURACY,
    MetricName.EVAL_PERPLEXITY: MetricName.REPLAY_PERPLEXITY,
}


def _model(job: Job, method: TrainingMethod[Any], objective: Objective, layer: Layer | None) -> torch.nn.Module:
    """The seeded, loaded and adapted model; torch's random state is left as `get_peft_model` leaves it."""
    torch.manual_seed(job.spec.seed)
    base = method.load(model_dir(layer, job.place.model_dir), objective, job.place.device)
    return attach(base, layer, job.spec.adapter)


def _settling(job: Job, model: torch.nn.Module, parts: Parts) -> Settling:
    examples = (*parts.training, *parts.validation, *parts.evaluation, *parts.replay)
    return Settling(model, examples, lambda: auxiliary_model(job.inputs, job.place), job.poll, job.place.device)
