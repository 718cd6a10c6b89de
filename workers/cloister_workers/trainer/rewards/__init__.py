# SPDX-License-Identifier: Apache-2.0
"""What an answer is worth in reinforcement: a fixed list of checks of the row, or a reward model. Never code that came
with a job.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from cloister_workers.messages import RowReason
from cloister_workers.trainer.prompts import Prompt
from cloister_workers.trainer.rewards.checks import (
    Check,
    exact_answer,
    json_schema,
    passes,
    regular_expression,
)


@dataclass(frozen=True)
class Exercise:
    """A prompt, and how its answers are judged."""

    prompt: Prompt
    """As the row has it."""
    text: str
    """As the model gets it."""
    check: Check | None
    """None where a reward model judges."""


class Rewarding(Protocol):
    """Judges answers."""

    def __call__(self, exercises: Sequence[Exercise], answers: Sequence[str]) -> list[float]:
        """A finite number for each answer to the exercise of the same place; more is better."""
        ...


class CheckKind(Protocol):
    """Reads a row's check."""

    def __call__(self, row: Mapping[str, object]) -> Check | RowReason: ...


CHECKS: Mapping[str, CheckKind] = {
    "exact_answer": exact_answer,
    "regular_expression": regular_expression,
    "json_schema": json_schema,
}
MODEL = "model"


def by_checks(exercises: Sequence[Exercise], answers: Sequence[str]) -> list[float]:
    """1 for an answer that passes, else 0."""
    return [
        float(exercise.check is not None and passes(exercise.check, answer))
        for exercise, answer in zip(exercises, answers, strict=True)
    ]
