# SPDX-License-Identifier: Apache-2.0
"""Kinds of jobs that do not train in the loop, each a file with its `STEP`: retrieval, in-context learning,
reinforcement by TRL, evaluation, inference.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cloister_workers.trainer.place import Inputs, Workplace
from cloister_workers.trainer.session import Session
from cloister_workers.trainer.spec import Method, TrainingSpec


@dataclass(frozen=True)
class JobStep:
    """One kind of job."""

    name: Method
    run: Callable[[TrainingSpec, Inputs, Workplace, Session], None]
    """From its start to its Result or Reported. Raises TrainerError, Cancelled or Paused."""
