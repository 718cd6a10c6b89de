# SPDX-License-Identifier: Apache-2.0
"""One input of a job that does not train, row by row with its number."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Generic, TypeVar

from cloister_workers.errors import RowsRefused, TrainerError
from cloister_workers.messages import (
    MAX_ROW_ERRORS,
    DatasetRole,
    FailureCode,
    FailureNumber,
    RowErrors,
    RowReason,
    Rows,
)
from cloister_workers.trainer.example import digest_of
from cloister_workers.trainer.rows import Row, RowProblem, read_rows
from cloister_workers.trainer.session import Session
from cloister_workers.trainer.stack.running import Job

_CHUNK = 512  # rows read at one time, and between two looks at the control socket
T = TypeVar("T")


@dataclass(frozen=True)
class Given(Generic[T]):
    """A row: its number in the file, from 1, what it says, and what was made of that."""

    number: int
    row: dict[str, object]
    value: T


def read_input(
    role: DatasetRole,
    job: Job,
    read: Callable[[Sequence[dict[str, object]]], Sequence[T | RowReason]],
) -> list[Given[T]]:
    """The rows of an input, in order; its counts are told.

    Raises RowsRefused where one is not usable (each was told by number and reason), TrainerError TOO_FEW_ROWS where
    there is none, INPUT_UNREADABLE where the stream fails.
    """
    found: list[Given[T]] = []
    problems: list[tuple[int, RowReason]] = []
    seen: set[bytes] = set()
    duplicates = 0
    for chunk in _chunks(job.inputs[role], job.spec.data.max_rows):
        job.poll()
        made = iter(read([row.value for row in chunk if isinstance(row, Row)]))
        for row in chunk:
            value = next(made) if isinstance(row, Row) else row.reason
            if isinstance(value, RowReason) or isinstance(row, RowProblem):
                problems.append((row.number, value if isinstance(value, RowReason) else RowReason.NOT_JSON))
                continue
            digest = digest_of(row.value)
            if digest in seen and job.spec.data.reject_duplicates:
                problems.append((row.number, RowReason.DUPLICATE))
            duplicates += digest in seen
            seen.add(digest)
            found.append(Given(row.number, row.value, value))
    refuse(role, problems, job.session)
    if not found:
        raise TrainerError(
            FailureCode.TOO_FEW_ROWS, f"the {role} dataset has no rows; give some", {FailureNumber.ROWS: 0}
        )
    job.session.tell(counts(role, len(found), duplicates))
    return found


def refuse(role: DatasetRole, problems: Sequence[tuple[int, RowReason]], session: Session) -> None:
    """Tell these rows, and raise RowsRefused, where there are any."""
    if not problems:
        return
    first = tuple(problems[:MAX_ROW_ERRORS])
    session.tell(RowErrors(dataset=role, total_errors=len(problems), errors=first))
    raise RowsRefused(
        FailureCode.ROWS_INVALID,
        f"{len(problems)} rows of the {role} dataset are not usable; mend them and seal it again",
        {FailureNumber.TOTAL_ERRORS: len(problems)},
    )


def counts(role: DatasetRole, rows: int, duplicates: int) -> Rows:
    """The message about an input of which every row is used."""
    return Rows(dataset=role, total=rows, used=rows, duplicates=duplicates, truncated=0, tokens=0, labels=0)


def _chunks(stream: BinaryIO, max_rows: int) -> Iterator[list[Row | RowProblem]]:
    rows = itertools.islice(read_rows(stream), max_rows or None)
    try:
        yield from iter(lambda: list(itertools.islice(rows, _CHUNK)), [])
    except OSError as error:
        raise TrainerError(
            FailureCode.INPUT_UNREADABLE, "an input ended with an error; look at the agent's log and retry"
        ) from error
