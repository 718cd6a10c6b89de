# SPDX-License-Identifier: Apache-2.0
"""Errors of a worker host.

* WorkerError
  * ProtocolError          a control message breaks the closed schema
    * PeerClosed           the other end closed the control socket
  * TrainerError           the job cannot go on; carries a closed code and numbers, never content
    * SpecError            a value of the job spec is not usable
    * ModelKindError       the model is of another kind than the method takes
    * RowsRefused          the row errors were reported already
  * StopTraining           not a fault: the job was told to stop
    * Cancelled
    * Paused
  * TookTooLong            a reward's check computed for longer than it may; never leaves the reward
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # messages.py raises ProtocolError, so the enumerations are imported for types alone
    from cloister_workers.messages import FailureCode, FailureNumber, ModelNeed, SpecField


class WorkerError(Exception):
    """Something on the worker host went wrong."""


class ProtocolError(WorkerError):
    """A control message breaks the closed schema of the trainer protocol."""


class PeerClosed(ProtocolError):
    """The other end closed the control socket."""


class TrainerError(WorkerError):
    """The job cannot go on: `code` and `numbers` are all that leaves the trainer.

    `text` stays inside the process (tests and debuggers see it); it must not hold dataset content.
    """

    def __init__(self, code: FailureCode, text: str, numbers: Mapping[FailureNumber, int] | None = None) -> None:
        super().__init__(text)
        self.code = code
        self.numbers: dict[FailureNumber, int] = dict(numbers or {})


class SpecError(TrainerError):
    """A value of the job spec is not usable; `field` names it."""

    def __init__(self, code: FailureCode, field: SpecField, text: str) -> None:
        super().__init__(code, text)
        self.field = field


class ModelKindError(TrainerError):
    """The model is of another kind than the method takes; `need` is which one that is."""

    def __init__(self, code: FailureCode, need: ModelNeed, text: str) -> None:
        super().__init__(code, text)
        self.need = need


class RowsRefused(TrainerError):
    """Some rows do not validate; each was reported by number and reason before this was raised."""


class StopTraining(WorkerError):
    """The job was told to stop; `step` is the number of optimiser steps done."""

    def __init__(self, step: int) -> None:
        super().__init__(f"stopped after step {step}")
        self.step = step


class Cancelled(StopTraining):
    """The agent cancelled the job."""


class Paused(StopTraining):
    """The agent paused the job, and its checkpoint was sent."""


class TookTooLong(WorkerError):
    """A check computed for longer than it may."""
