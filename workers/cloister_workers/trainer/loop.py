# SPDX-License-Identifier: Apache-2.0
"""The training loop. What it does, exactly, so that a plain script can do the same:

0. The training examples are the rows of the training part (`split.split_rows`; all rows where both fractions
   are 0) in row order. Classes are numbered in code point order of their labels.
1. `torch.manual_seed(seed)`, then the model is loaded (`from_pretrained`, which draws the classification
   head) and adapted (`get_peft_model`, which draws the adapters). Nothing else draws random numbers before
   step 1, evaluations included. In training, `model.train()`: dropout of the base model and of the adapter is
   on and draws from torch's global generator. Python's and numpy's generators are not used.
2. Epoch e (from 0) visits the n training examples in `order.data_order(seed, e, n)`. A step takes the next
   batch_size of them; the last step of an epoch takes what is left. max_steps is n_epochs * ceil(n /
   batch_size) unless given.
3. A step's batch is cut into micro batches (classification: at most micro_batch_size examples as
   `padding.least_padding` groups them, padded at the right to the longest of the micro batch, with an attention mask;
   supervised: packed, see `objectives.supervised`). The loss of the step is the sum of all token or example losses
   of the step divided by their number in the *step*.
4. Gradients are clipped to max_grad_norm (`clip_grad_norm_`), then AdamW takes a step: betas (0.9, 0.999),
   eps 1e-8, weight_decay on every trained tensor, rate `schedule.learning_rate(kind, peak, step, max_steps,
   warmup_ratio)` with step from 0. Weights, gradients and moments are float32 on a CPU; no autocast.

A step's reported loss is that before its update. The loop looks at the control socket before every micro
batch. With early_stop_patience or keep_best the validation part is measured after the last step too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch

from cloister_workers.errors import Paused, TrainerError
from cloister_workers.messages import (
    EvaluationPhase,
    FailureCode,
    FailureNumber,
    MetricName,
    Metrics,
    Progress,
)
from cloister_workers.trainer.checkpoint import LoopState
from cloister_workers.trainer.evaluate import evaluate
from cloister_workers.trainer.example import Example
from cloister_workers.trainer.objectives import Objective
from cloister_workers.trainer.optimiser import Optimiser
from cloister_workers.trainer.order import Visits, milestones, steps_per_epoch
from cloister_workers.trainer.schedule import learning_rate
from cloister_workers.trainer.spec import TrainingSpec
from cloister_workers.trainer.spikes import RowLoss, Spikes, odd_rows
from cloister_workers.trainer.telling import Teller


class Hooks(Protocol):
    """What the loop tells, and whom it asks."""

    def poll(self, step: int) -> None:
        """Called before every micro batch, with the steps done; raises Cancelled to stop at once."""
        ...

    def pause_wanted(self) -> bool:
        """Whether to end after this step with a checkpoint."""
        ...

    def progress(self, message: Progress) -> None: ...

    def evaluated(self, phase: EvaluationPhase, step: int, metrics: Metrics) -> None: ...

    def checkpoint(self, state: LoopState, metrics: Metrics) -> None: ...


@dataclass(frozen=True)
class Plan:
    """How many steps, and where in them something more happens."""

    max_steps: int
    per_epoch: int
    evaluations: frozenset[int]
    checkpoints: frozenset[int]


def plan_of(spec: TrainingSpec, count: int) -> Plan:
    """The steps of a job with `count` training examples."""
    wanted = spec.hyperparameters
    per_epoch = steps_per_epoch(count, wanted.batch_size)
    total = wanted.max_steps or wanted.n_epochs * per_epoch
    last = frozenset({total} if wanted.keep_best or wanted.early_stop_patience else ())
    evaluations = milestones(total, wanted.n_evals) | last
    return Plan(total, per_epoch, evaluations, milestones(total, wanted.n_checkpoints))


@dataclass(frozen=True)
class Trainee:
    """What is trained, by which losses, and how it moves."""

    model: torch.nn.Module
    objective: Objective
    optimiser: Optimiser


@dataclass(frozen=True)
class Parts:
    """The examples of a job by purpose; no two parts share an input."""

    training: tuple[Example, ...]
    validation: tuple[Example, ...] = ()
    evaluation: tuple[Example, ...] = ()
    replay: tuple[Example, ...] = ()
    """Held-out rows of the replay dataset, on which forgetting is measured."""


def train(
    spec: TrainingSpec,
    trainee: Trainee,
    parts: Parts,
    hooks: Hooks,
    clock: Callable[[], float],
    state: LoopState,
    enough: Callable[[Metrics], bool] = lambda _: False,
    notice: Callable[[int, tuple[RowLoss, ...]], object] = lambda *_: None,
) -> LoopState:
    """Train from `state` to the end of the plan, or until `enough` says so of an evaluation. `clock` gives seconds;
    it decides on what is told when, nothing else. `notice` is told of steps whose loss stands out, and of their rows.

    Raises Cancelled before the next micro batch, Paused after a step whose checkpoint was told, and
    TrainerError NON_FINITE_LOSS with the step at which a loss or gradient norm was no number, and its worst row.
    """
    model, objective, optimiser = trainee.model, trainee.objective, trainee.optimiser
    examples, wanted = parts.training, spec.hyperparameters
    plan = plan_of(spec, len(examples))
    teller = Teller(hooks.progress, plan.max_steps, plan.per_epoch, clock, state)
    visits, spikes, losses = Visits(spec.seed, len(examples), wanted.batch_size), Spikes(), list[RowLoss]()

    def poll() -> None:
        hooks.poll(state.step)

    model.train()
    while state.step < plan.max_steps:
        # ------------------------------------------------ data
        batch = [examples[index] for index in visits.step(state.step)]

        # ------------------------------------------------ forward and backward, one micro batch after the other
        losses.clear()
        loss = accumulate(model, objective, batch, poll, losses)

        # ------------------------------------------------ update
        norm = float(optimiser.clip())
        if spikes.stands_out(loss if math.isfinite(norm) else math.nan):
            _odd_step(state.step + 1, loss, norm, losses, notice)
        rate = learning_rate(
            wanted.lr_scheduler_type, wanted.learning_rate, state.step, plan.max_steps, wanted.warmup_ratio
        )
        optimiser.step(rate)
        tokens = state.trained_tokens + sum(example.size for example in batch)
        state = replace(state, step=state.step + 1, trained_tokens=tokens, loss=loss)

        # ------------------------------------------------ once in a while
        teller.step(state, {MetricName.LEARNING_RATE: rate, MetricName.GRAD_NORM: norm})
        metrics: dict[MetricName, float] = {MetricName.LOSS: loss}
        if parts.validation and state.step in plan.evaluations:
            measured = evaluate(model, objective, parts.validation, wanted.batch_size, poll)
            hooks.evaluated(EvaluationPhase.DURING, state.step, measured)
            metrics |= measured
            state = _judged(state, measured, optimiser, keep=wanted.keep_best)
            if enough(measured) or 0 < wanted.early_stop_patience <= state.waited:
                break
        pause = hooks.pause_wanted() and state.step < plan.max_steps
        if pause or state.step in plan.checkpoints:
            hooks.checkpoint(state, metrics)
        if pause:
            teller.pause(state)
            raise Paused(state.step)
    if wanted.keep_best and state.best_step:
        optimiser.restore()
    teller.end(state)
    return state


def _judged(state: LoopState, measured: Metrics, optimiser: Optimiser, *, keep: bool) -> LoopState:
    """After an evaluation: whether it is the best so far, whose weights are kept on request. One whose loss is no
    number has no metrics, and is never the best.
    """
    loss = measured.get(MetricName.EVAL_LOSS, math.inf)
    if state.best_step and loss >= state.best_loss:
        return replace(state, waited=state.waited + 1)
    if not math.isfinite(loss):
        return state
    if keep:
        optimiser.keep()
    return replace(state, best_step=state.step, best_loss=loss, waited=0)


def accumulate(
    model: torch.nn.Module,
    objective: Objective,
    batch: Sequence[Example],
    before_micro_batch: Callable[[], object],
    losses: list[RowLoss] | None = None,
) -> float:
    """Add the gradients of a step's loss, and return the loss: all summed losses over all weights of the
    batch. What each row lost, per weight, is put into `losses`.
    """
    weight = sum(objective.weight(example) for example in batch)
    total = 0.0
    for micro in objective.micro_batches(batch):
        before_micro_batch()
        sums = objective.outcome(model, micro).sums
        loss = sums.sum() / weight
        loss.backward()  # type: ignore[no-untyped-call]
        total += float(loss.detach())
        if losses is not None:
            shares = zip(micro, sums.detach().tolist(), strict=True)
            losses += [RowLoss(e.row, lost / (objective.weight(e) or 1), e.replayed) for e, lost in shares]
    return total


def _odd_step(
    step: int, loss: float, norm: float, losses: Sequence[RowLoss], notice: Callable[[int, tuple[RowLoss, ...]], object]
) -> None:
    """Say which rows made it odd. Raises TrainerError where loss or gradient is no number: then nothing can go on."""
    rows = odd_rows(losses)
    notice(step, rows)
    if math.isfinite(loss) and math.isfinite(norm):
        return
    numbers = {FailureNumber.STEP: step}
    if rows and rows[0].row:
        numbers[FailureNumber.ROW] = rows[0].row
    raise TrainerError(
        FailureCode.NON_FINITE_LOSS,
        f"loss or gradient of step {step} is not finite; lower learning_rate or look at its rows",
        numbers,
    )
