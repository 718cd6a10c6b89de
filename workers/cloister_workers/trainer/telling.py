# SPDX-License-Identifier: Apache-2.0
"""What is told of training while it runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

from cloister_workers.messages import MAX_LOSSES, MAX_PROGRESS_PER_SECOND, MetricName, Progress
from cloister_workers.trainer.checkpoint import LoopState


class Teller:
    """Thins progress to the allowed rate without losing a loss, and estimates the time left."""

    def __init__(
        self,
        tell: Callable[[Progress], object],
        max_steps: int,
        per_epoch: int,
        clock: Callable[[], float],
        start: LoopState,
    ) -> None:
        self._tell, self._max_steps, self._per_epoch, self._clock = tell, max_steps, per_epoch, clock
        self._start, self._began = start, clock()
        self._told = -math.inf
        self._losses: list[float] = []
        self._last: Progress | None = None

    def step(self, state: LoopState, metrics: Mapping[MetricName, float]) -> None:
        """Called after every step; tells the first, the last, and others as the rate allows."""
        now = self._clock()
        self._losses.append(state.loss)
        last = state.step == self._max_steps
        soon = now - self._told < 1 / MAX_PROGRESS_PER_SECOND
        if soon and not last and len(self._losses) < MAX_LOSSES:
            return
        elapsed = max(now - self._began, 1e-9)
        tokens = state.trained_tokens - self._start.trained_tokens
        per_step = elapsed / (state.step - self._start.step)
        self._last = Progress(
            step=state.step,
            max_steps=self._max_steps,
            epoch=state.step / self._per_epoch,
            metrics={
                MetricName.LOSS: state.loss,
                **metrics,
                MetricName.TOKENS_PER_SECOND: tokens / elapsed,
            },
            losses=tuple(self._losses),
            trained_tokens=state.trained_tokens,
            eta_seconds=per_step * (self._max_steps - state.step),
        )
        self._tell(self._last)
        self._told = now
        self._losses.clear()

    def pause(self, state: LoopState) -> None:
        """Called before the loop is left in the middle: what was not told yet is told."""
        if self._losses:
            self._rest(state, self._max_steps)

    def end(self, state: LoopState) -> None:
        """Called once, at the end: a plan that was stopped early is over all the same."""
        if self._losses or state.step != self._max_steps:
            self._rest(state, state.step)

    def _rest(self, state: LoopState, max_steps: int) -> None:
        if self._last is None:
            return
        left = self._last.eta_seconds if state.step < max_steps else 0.0
        told = replace(self._last, step=state.step, max_steps=max_steps, losses=tuple(self._losses), eta_seconds=left)
        self._tell(replace(told, epoch=state.step / self._per_epoch, trained_tokens=state.trained_tokens))
        self._losses.clear()
