# SPDX-License-Identifier: Apache-2.0
"""Rows of a de-biasing job by kind, and the parts into which everything is divided.

A row is a JSON object. Its key `kind` names a row kind; without that key it is told by its other keys
(`shapes.py`). A file that needs rows of its own declares them with `@row_kind("name")` on a frozen dataclass that
has `parse(row) -> Self | RowReason`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, Self, TypeVar

from cloister_workers.messages import RowReason
from cloister_workers.trainer.debias.lexicon import Lexicon


class RowType(Protocol):
    """A kind of row: a frozen dataclass, text checked when it is parsed."""

    @classmethod
    def parse(cls, row: Mapping[str, object]) -> Self | RowReason:
        """The row, or why it is none; never raises."""
        ...

    def keys(self) -> tuple[str, ...]:
        """What makes two rows dependent: rows that share a key go to one part together.

        Texts, template and person ids, each with a prefix that tells them apart (`text:`, `template:`, `person:`).
        """
        ...


R = TypeVar("R", bound=RowType)
ROW_KINDS: dict[str, type[RowType]] = {}


def row_kind(name: str) -> Callable[[type[R]], type[R]]:
    """Register a kind of row under the name that its rows give as `kind`."""

    def register(cls: type[R]) -> type[R]:
        if name in ROW_KINDS:
            raise ValueError(f"row kind {name} is registered twice; rename one")
        ROW_KINDS[name] = cls
        return cls

    return register


@dataclass(frozen=True)
class Material:
    """Rows of one part, by kind, each kind in row order."""

    rows: Mapping[type, tuple[Any, ...]] = field(default_factory=dict)

    def of(self, kind: type[R]) -> tuple[R, ...]:
        """All rows of a kind; empty where there are none."""
        return self.rows.get(kind, ())

    @classmethod
    def from_rows(cls, rows: Iterable[RowType]) -> Material:
        """Sort rows by their kind."""
        found: dict[type, list[Any]] = {}
        for row in rows:
            found.setdefault(type(row), []).append(row)
        return cls({kind: tuple(entries) for kind, entries in found.items()})


@dataclass(frozen=True)
class Part:
    """What may be fitted on, or chosen on, or measured on. Parts of one job share no row, text, template or person, and
    their word lists no name or content word; function words (he, she, his, ...) are a closed class and stand in all of
    them. Which words rows may name, is said at `partition.Partition`.
    """

    rows: Material
    lexicons: Mapping[str, Lexicon]
    """This part's share of the lexicon of each axis."""
