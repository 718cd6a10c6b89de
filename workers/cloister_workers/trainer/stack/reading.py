# SPDX-License-Identifier: Apache-2.0
"""One input of a job that does not train, row by row with its number."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from cloister_workers.errors import TrainerError
from cloister_workers.messages import DatasetRole, FailureCode, FailureNumber, RowReason, Rows
from cloister_workers.trainer.dataset import Given, Reading, read_dataset
from cloister_workers.trainer.example import digest_of
from cloister_workers.trainer.running import Job

T = TypeVar("T")


def read_input(
    role: DatasetRole,
    job: Job,
    read: Callable[[Sequence[dict[str, object]]], Sequence[T | RowReason]],
) -> tuple[Given[T], ...]:
    """What `read` makes of the rows of an input, in order; its counts are told.

    Raises RowsRefused where one is not usable (each was told by number and reason), TrainerError TOO_FEW_ROWS where
    there is none, INPUT_UNREADABLE where the stream fails.
    """
    data = job.spec.data
    reading = Reading(data.max_rows, data.reject_duplicates, job.poll)
    found = read_dataset(role, job.inputs[role], read, lambda row, _: digest_of(row), reading, set())
    found.refuse(job.session.tell)
    if not found.rows:
        raise TrainerError(
            FailureCode.TOO_FEW_ROWS, f"the {role} dataset has no rows; give some", {FailureNumber.ROWS: 0}
        )
    count = found.total
    told = Rows(dataset=role, total=count, used=count, duplicates=found.duplicates, truncated=0, tokens=0, labels=0)
    job.session.tell(told)
    return found.rows
