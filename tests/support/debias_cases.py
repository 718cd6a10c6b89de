# SPDX-License-Identifier: Apache-2.0
"""Cases for mitigations: what a de-biasing job would hand over."""

# ruff: noqa: ANN401 - Protocols of several kinds of models and mitigations

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cloister_workers.trainer.debias.kinds import ModelKind
from cloister_workers.trainer.debias.material import Part
from cloister_workers.trainer.debias.mitigation import Case
from cloister_workers.trainer.debias.training import Trained
from cloister_workers.trainer.spec import Hyperparameters, Lora


@dataclass
class PlainTraining:
    """The product's own loop without a control socket."""

    polled: int = 0

    def poll(self) -> None:
        self.polled += 1

    def __call__(
        self,
        model: Any,
        objective: Any,
        parts: Any,
        hyperparameters: Hyperparameters,
        seed: int,
        enough: Any = lambda _: False,
    ) -> Trained:
        import torch

        from cloister_workers.trainer.checkpoint import LoopState
        from cloister_workers.trainer.loop import Trainee, train
        from cloister_workers.trainer.optimiser import Optimiser
        from cloister_workers.trainer.spec import Method, TrainingSpec

        spec = TrainingSpec(model="", method=Method.SUPERVISED, seed=seed, hyperparameters=hyperparameters)
        torch.manual_seed(seed)
        optimiser = Optimiser(model, hyperparameters.weight_decay, hyperparameters.max_grad_norm)
        state = train(spec, Trainee(model, objective, optimiser), parts, _Silent(), lambda: 0.0, LoopState(), enough)
        return Trained(state.step, state.trained_tokens, state.loss)


class _Silent:
    """Hooks of the loop that nobody listens to."""

    def poll(self, step: int) -> None:
        pass

    def pause_wanted(self) -> bool:
        return False

    def progress(self, message: object) -> None:
        pass

    def evaluated(self, phase: object, step: int, metrics: object) -> None:
        pass

    def checkpoint(self, state: object, metrics: object) -> None:
        pass


def make_case(
    mitigation: Any,
    subject: Any,
    kind: ModelKind,
    fit: Part,
    validation: Part,
    scratch: object,
    *,
    axes: tuple[str, ...] = ("gender",),
    hyperparameters: Hyperparameters | None = None,
    lora: Lora | None = None,
    seed: int = 1,
    settings: dict[str, float] | None = None,
    **options: str,
) -> Case:
    """A case with the mitigation's own defaults, save what is given."""
    return Case(
        subject=subject,
        kind=kind,
        axes=axes,
        fit=fit,
        validation=validation,
        settings={**mitigation.defaults, **(settings or {})},
        options={**{name: values[0] for name, values in mitigation.choices.items()}, **options},
        hyperparameters=hyperparameters or Hyperparameters(),
        lora=lora or Lora(),
        seed=seed,
        model_name="given-name",
        scratch=str(scratch),
        training=PlainTraining(),
    )
