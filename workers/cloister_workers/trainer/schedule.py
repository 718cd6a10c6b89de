# SPDX-License-Identifier: Apache-2.0
"""The learning rate of a step; the formulas are those of the schedulers that transformers names alike."""

from __future__ import annotations

import math

from cloister_workers.trainer.spec import Scheduler


def learning_rate(kind: Scheduler, peak: float, step: int, max_steps: int, warmup_ratio: float) -> float:
    """The rate with which optimiser step `step` (from 0) is taken.

    With W = ceil(warmup_ratio * max_steps): step < W gives peak * step / W (so the very first step of a
    warm-up has rate 0); then, with p = (step - W) / max(1, max_steps - W): linear peak * (1 - p), cosine peak
    * (1 + cos(pi p)) / 2, constant peak.
    """
    warmup = math.ceil(warmup_ratio * max_steps)
    if step < warmup:
        return peak * step / warmup
    part = (step - warmup) / max(1, max_steps - warmup)
    match kind:
        case Scheduler.LINEAR:
            return peak * max(0.0, 1.0 - part)
        case Scheduler.COSINE:
            return peak * max(0.0, 0.5 * (1.0 + math.cos(math.pi * part)))
        case Scheduler.CONSTANT:
            return peak
