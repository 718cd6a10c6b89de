# SPDX-License-Identifier: Apache-2.0
"""The product's training loop for mitigations, with checkpoints, resume and progress over several runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import BinaryIO

import torch

from cloister_workers.messages import Checkpoint, EvaluationPhase, Metrics, Progress
from cloister_workers.trainer.checkpoint import LoopState, fingerprint, load_checkpoint, save_checkpoint
from cloister_workers.trainer.debias.kinds import ModelKind
from cloister_workers.trainer.debias.training import Trained
from cloister_workers.trainer.loop import Parts, Trainee, train
from cloister_workers.trainer.objectives import Objective
from cloister_workers.trainer.optimiser import Optimiser
from cloister_workers.trainer.session import Session
from cloister_workers.trainer.spec import Hyperparameters, Method, TrainingSpec


@dataclass
class LoopTraining:
    """Training for run `run` of `runs`. Only the run that may be released (0) writes checkpoints: the others are a
    look at robustness and start anew after a crash.
    """

    session: Session
    kind: ModelKind
    run: int
    runs: int
    resume: BinaryIO | None
    """A checkpoint of run 0; read once."""
    clock: Callable[[], float]
    _steps: int = field(default=0, init=False)

    def poll(self) -> None:
        self.session.poll(self._steps)

    def __call__(
        self,
        model: torch.nn.Module,
        objective: Objective,
        parts: Parts,
        hyperparameters: Hyperparameters,
        seed: int,
        enough: Callable[[Metrics], bool] = lambda _: False,
    ) -> Trained:
        method = Method.CLASSIFICATION if self.kind is ModelKind.CLASSIFIER else Method.SUPERVISED
        spec = TrainingSpec(model="", method=method, seed=seed, hyperparameters=hyperparameters)
        torch.manual_seed(seed)
        optimiser = Optimiser(model, spec.hyperparameters.weight_decay, spec.hyperparameters.max_grad_norm)
        mark = fingerprint(spec, parts.training)
        state = LoopState()
        if self.resume is not None and self.run == 0:
            stream, self.resume = self.resume, None
            state = load_checkpoint(stream, optimiser, mark, objective)
        hooks = _Hooks(self, Trainee(model, objective, optimiser), mark)
        state = train(spec, Trainee(model, objective, optimiser), parts, hooks, self.clock, state, enough)
        self._steps = state.step
        return Trained(state.step, state.trained_tokens, state.loss)


@dataclass(frozen=True)
class _Hooks:
    """The loop's hooks for one run."""

    training: LoopTraining
    trainee: Trainee
    mark: str

    def poll(self, step: int) -> None:
        self.training.session.poll(step)

    def pause_wanted(self) -> bool:
        return self.training.session.pause_wanted()

    def progress(self, message: Progress) -> None:
        """Steps count through all runs, so that progress never goes back."""
        done = self.training.run * message.max_steps
        total = self.training.runs * message.max_steps
        self.training.session.progress(replace(message, step=done + message.step, max_steps=total))

    def evaluated(self, phase: EvaluationPhase, step: int, metrics: Metrics) -> None:
        self.training.session.evaluated(phase, step, metrics)

    def checkpoint(self, state: LoopState, metrics: Metrics) -> None:
        if self.training.run > 0:
            return  # the checkpoint of run 0 is the one to go on from
        descriptor = save_checkpoint(self.trainee.optimiser, state, self.mark, self.trainee.objective)
        self.training.session.hand_over(Checkpoint(step=state.step, metrics=metrics), descriptor)
