# SPDX-License-Identifier: Apache-2.0
"""One input of the job: every row read, checked and tokenised before anything is trained."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import BinaryIO

from cloister_workers.errors import TrainerError
from cloister_workers.messages import MAX_ROW_ERRORS, DatasetRole, FailureCode, RowErrors, RowReason
from cloister_workers.trainer.example import Example
from cloister_workers.trainer.objectives import Objective
from cloister_workers.trainer.rows import Row, RowProblem, read_rows

_CHUNK = 512  # rows tokenised at one time, and between two looks at the control socket


@dataclass(frozen=True)
class Dataset:
    """The examples of one input in row order; `problems` are the rows refused, by number."""

    role: DatasetRole
    examples: tuple[Example, ...]
    total: int
    duplicates: int
    problems: tuple[tuple[int, RowReason], ...]

    def row_errors(self) -> RowErrors:
        """The message about the refused rows."""
        return RowErrors(dataset=self.role, total_errors=len(self.problems), errors=self.problems[:MAX_ROW_ERRORS])


@dataclass(frozen=True)
class Reading:
    """How to read: a limit of rows (0: none), whether a repeated row is an error, and what to call between
    chunks.
    """

    max_rows: int
    reject_duplicates: bool
    before_chunk: Callable[[], object]


def read_dataset(
    role: DatasetRole, stream: BinaryIO, objective: Objective, reading: Reading, seen: set[bytes]
) -> Dataset:
    """Read `stream` to its end. `seen` holds the digests of all rows read so far and grows: repeats count
    across inputs.

    Raises TrainerError INPUT_UNREADABLE where the stream itself fails.
    """
    examples: list[Example] = []
    problems: list[tuple[int, RowReason]] = []
    total = duplicates = 0
    for chunk in _chunks(stream):
        reading.before_chunk()
        used = chunk[: reading.max_rows - total] if reading.max_rows else chunk
        total += len(used)
        for number, made in _examples(used, objective):
            if isinstance(made, RowReason):
                problems.append((number, made))
                continue
            repeated = made[0].digest in seen
            duplicates += repeated
            if repeated and reading.reject_duplicates:
                problems.append((number, RowReason.DUPLICATE))
                continue
            seen.add(made[0].digest)
            examples += [replace(piece, row=number, replayed=role is DatasetRole.REPLAY) for piece in made]
    return Dataset(role, tuple(examples), total, duplicates, tuple(problems))


def _chunks(stream: BinaryIO) -> Iterator[list[Row | RowProblem]]:
    rows = read_rows(stream)
    try:
        yield from iter(lambda: list(itertools.islice(rows, _CHUNK)), [])
    except OSError as error:
        raise unreadable() from error


def unreadable() -> TrainerError:
    """A stream that failed while it was read."""
    return TrainerError(FailureCode.INPUT_UNREADABLE, "an input ended with an error; look at the agent's log and retry")


def _examples(
    chunk: list[Row | RowProblem], objective: Objective
) -> Iterator[tuple[int, tuple[Example, ...] | RowReason]]:
    made = iter(objective.read([row.value for row in chunk if isinstance(row, Row)]))
    for row in chunk:
        found = next(made) if isinstance(row, Row) else row.reason
        yield row.number, (found,) if isinstance(found, Example) else found
