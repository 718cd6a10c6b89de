# SPDX-License-Identifier: Apache-2.0
"""The inputs of a de-biasing job: every row read and checked, before anything is measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

from cloister_workers.errors import RowsRefused, TrainerError
from cloister_workers.messages import RowErrors, Rows
from cloister_workers.trainer.debias.material import RowType
from cloister_workers.trainer.debias.shapes import Labelled, parse_row
from cloister_workers.trainer.example import digest_of
from cloister_workers.trainer.rows import Row, read_rows
from cloister_workers.trainer.spec import Data
from cloister_workers.words import DatasetRole, FailureCode, FailureNumber, RowReason

MAX_ROW_ERRORS = 100
_POLL_EVERY = 512  # rows


@dataclass(frozen=True)
class Reader:
    """How to read an input, and what to call on the way."""

    data: Data
    labels: frozenset[str]
    """Labels that a classifier knows; empty for other models."""
    poll: Callable[[], object]
    tell: Callable[[Rows | RowErrors], object]

    def read(self, role: DatasetRole, stream: BinaryIO, seen: set[bytes]) -> tuple[RowType, ...]:
        """All rows of `stream`. `seen` holds digests of rows read so far, and grows.

        Raises RowsRefused after the row errors were told, and TrainerError INPUT_UNREADABLE.
        """
        rows: list[RowType] = []
        problems: list[tuple[int, RowReason]] = []
        total = duplicates = 0
        try:
            for line in read_rows(stream):
                if total % _POLL_EVERY == 0:
                    self.poll()
                if self.data.max_rows and total == self.data.max_rows:
                    continue  # read to the end, so that the pour into the pipe ends well
                total += 1
                made, repeated = self._row(line.value, seen) if isinstance(line, Row) else (line.reason, False)
                duplicates += repeated
                if isinstance(made, RowReason):
                    problems.append((line.number, made))
                else:
                    rows.append(made)
        except OSError as error:
            raise TrainerError(
                FailureCode.INPUT_UNREADABLE, "an input ended with an error; look at the agent's log and retry"
            ) from error
        if problems:
            self._refuse(role, problems)
        self.tell(
            Rows(
                dataset=role,
                total=total,
                used=len(rows),
                duplicates=duplicates,
                truncated=0,
                tokens=0,
                labels=len(self.labels),
            )
        )
        return tuple(rows)

    def _row(self, value: dict[str, object], seen: set[bytes]) -> tuple[RowType | RowReason, bool]:
        made = parse_row(value)
        if isinstance(made, RowReason):
            return made, False
        if isinstance(made, Labelled) and self.labels and made.label not in self.labels:
            return RowReason.UNKNOWN_LABEL, False
        digest = digest_of(value)
        repeated = digest in seen
        seen.add(digest)
        return (RowReason.DUPLICATE if repeated and self.data.reject_duplicates else made), repeated

    def _refuse(self, role: DatasetRole, problems: list[tuple[int, RowReason]]) -> None:
        self.tell(RowErrors(dataset=role, total_errors=len(problems), errors=tuple(problems[:MAX_ROW_ERRORS])))
        raise RowsRefused(
            FailureCode.ROWS_INVALID,
            f"{len(problems)} rows of the {role} dataset are not usable; mend them and seal it again",
            {FailureNumber.TOTAL_ERRORS: len(problems)},
        )
