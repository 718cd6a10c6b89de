# SPDX-License-Identifier: Apache-2.0
"""One input of a job: every row read and checked before anything else is done."""

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
)
from cloister_workers.trainer.rows import Row, RowProblem, read_rows

_CHUNK = 512  # rows read at one time, and between two looks at the control socket
T = TypeVar("T")


@dataclass(frozen=True)
class Given(Generic[T]):
    """What was made of a row, and its number in the file, from 1."""

    number: int
    value: T


@dataclass(frozen=True)
class Dataset(Generic[T]):
    """The usable rows of one input in their order; `problems` are the rows refused, by number."""

    role: DatasetRole
    rows: tuple[Given[T], ...] = ()
    total: int = 0
    duplicates: int = 0
    problems: tuple[tuple[int, RowReason], ...] = ()

    def refuse(self, tell: Callable[[RowErrors], object]) -> None:
        """Tell which rows are not usable, and raise RowsRefused, where there are any."""
        if not self.problems:
            return
        count = len(self.problems)
        tell(RowErrors(dataset=self.role, total_errors=count, errors=self.problems[:MAX_ROW_ERRORS]))
        raise RowsRefused(
            FailureCode.ROWS_INVALID,
            f"{count} rows of the {self.role} dataset are not usable; mend them and seal it again",
            {FailureNumber.TOTAL_ERRORS: count},
        )


@dataclass(frozen=True)
class Reading:
    """How to read: a limit of rows (0: none), whether a repeated row is an error, and what to call between
    chunks.
    """

    max_rows: int
    reject_duplicates: bool
    before_chunk: Callable[[], object]


def read_dataset(
    role: DatasetRole,
    stream: BinaryIO,
    read: Callable[[Sequence[dict[str, object]]], Sequence[T | RowReason]],
    digest: Callable[[dict[str, object], T], bytes],
    reading: Reading,
    seen: set[bytes],
) -> Dataset[T]:
    """Read `stream` to its end, beyond the limit too, so that the pour into the pipe ends well.

    `read` makes something, or a reason, of each row; `digest` is equal for rows that repeat one another. `seen` holds
    the digests of all rows read so far and grows: repeats count across inputs.

    Raises TrainerError INPUT_UNREADABLE where the stream itself fails.
    """
    rows: list[Given[T]] = []
    problems: list[tuple[int, RowReason]] = []
    total = duplicates = 0
    for chunk in _chunks(stream):
        reading.before_chunk()
        used = chunk[: reading.max_rows - total] if reading.max_rows else chunk
        total += len(used)
        for number, row, made in _made(used, read):
            if isinstance(made, RowReason):
                problems.append((number, made))
                continue
            mark = digest(row, made)
            repeated = mark in seen
            duplicates += repeated
            if repeated and reading.reject_duplicates:
                problems.append((number, RowReason.DUPLICATE))
                continue
            seen.add(mark)
            rows.append(Given(number, made))
    return Dataset(role, tuple(rows), total, duplicates, tuple(problems))


def _chunks(stream: BinaryIO) -> Iterator[list[Row | RowProblem]]:
    rows = read_rows(stream)
    try:
        yield from iter(lambda: list(itertools.islice(rows, _CHUNK)), [])
    except OSError as error:
        raise unreadable() from error


def _made(
    chunk: Sequence[Row | RowProblem], read: Callable[[Sequence[dict[str, object]]], Sequence[T | RowReason]]
) -> Iterator[tuple[int, dict[str, object], T | RowReason]]:
    """Each line's number, its row (empty for a line that is none), and what was made of it."""
    made = iter(read([row.value for row in chunk if isinstance(row, Row)]))
    for row in chunk:
        if isinstance(row, Row):
            yield row.number, row.value, next(made)
        else:
            yield row.number, {}, row.reason


def unreadable() -> TrainerError:
    """A stream that failed while it was read."""
    return TrainerError(FailureCode.INPUT_UNREADABLE, "an input ended with an error; look at the agent's log and retry")
