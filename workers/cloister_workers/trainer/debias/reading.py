# SPDX-License-Identifier: Apache-2.0
"""The inputs of a de-biasing job: every row read and checked, before anything is measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from cloister_workers.messages import RowErrors, Rows
from cloister_workers.trainer.dataset import Reading, read_dataset
from cloister_workers.trainer.debias.material import RowType
from cloister_workers.trainer.debias.shapes import Labelled, parse_row
from cloister_workers.trainer.example import digest_of
from cloister_workers.trainer.spec import Data
from cloister_workers.words import DatasetRole, RowReason


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
        reading = Reading(self.data.max_rows, self.data.reject_duplicates, self.poll)
        found = read_dataset(role, stream, self._parsed, lambda row, _: digest_of(row), reading, seen)
        found.refuse(self.tell)
        told = Rows(
            dataset=role,
            total=found.total,
            used=len(found.rows),
            duplicates=found.duplicates,
            truncated=0,
            tokens=0,
            labels=len(self.labels),
        )
        self.tell(told)
        return tuple(given.value for given in found.rows)

    def _parsed(self, rows: Sequence[dict[str, object]]) -> list[RowType | RowReason]:
        return [self._row(row) for row in rows]

    def _row(self, value: dict[str, object]) -> RowType | RowReason:
        made = parse_row(value)
        known = not isinstance(made, Labelled) or not self.labels or made.label in self.labels
        return made if known else RowReason.UNKNOWN_LABEL
