# SPDX-License-Identifier: Apache-2.0
"""Fields of rows, checked: what the row kinds of benchmarks share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from cloister_workers.messages import RowReason
from cloister_workers.trainer.rows import checked_text, text_of

T = TypeVar("T", str, int)


def texts(row: Mapping[str, object], *names: str) -> dict[str, str] | RowReason:
    """The non-empty texts under `names`, or why one of them is none."""
    found: dict[str, str] = {}
    for name in names:
        value = text_of(dict(row), name)
        if isinstance(value, RowReason):
            return value
        found[name] = value
    return found


def identifier(row: Mapping[str, object], name: str, default: str | None = None) -> str | RowReason:
    """A text or whole number under `name`, as text. `default` stands in where the key is missing or null."""
    value = row.get(name)
    if value is None:
        return RowReason.MISSING_KEY if default is None else default
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return checked_text(value)


def one_of(row: Mapping[str, object], name: str, allowed: Sequence[T]) -> T | RowReason:
    """The value under `name`, one of `allowed` and of the same type."""
    if name not in row:
        return RowReason.MISSING_KEY
    value = row[name]
    return next((entry for entry in allowed if type(value) is type(entry) and value == entry), RowReason.WRONG_TYPE)


def text_list(row: Mapping[str, object], name: str, length: int) -> tuple[str, ...] | RowReason:
    """`length` non-empty texts under `name`."""
    if name not in row:
        return RowReason.MISSING_KEY
    value = row[name]
    if not isinstance(value, list) or len(value) != length:
        return RowReason.WRONG_TYPE
    found = [checked_text(entry) for entry in value]
    problem = next((entry for entry in found if isinstance(entry, RowReason)), None)
    return tuple(entry for entry in found if not isinstance(entry, RowReason)) if problem is None else problem
