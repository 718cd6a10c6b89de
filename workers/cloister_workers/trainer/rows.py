# SPDX-License-Identifier: Apache-2.0
"""Rows of a JSONL stream, each with its number, or the reason why it is none.

Lines end with LF (a CR before it is white space to JSON). Blank lines are skipped but counted, so a row's
number is its line number, from 1. One byte order mark at the start is skipped. Memory holds one line at a
time.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from cloister_workers.messages import RowReason

MAX_LINE = 4 * 1024 * 1024  # bytes of one row
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Row:
    """One JSON object and its line number."""

    number: int
    value: dict[str, object]


@dataclass(frozen=True)
class RowProblem:
    """A line that is no row."""

    number: int
    reason: RowReason


def read_rows(stream: BinaryIO) -> Iterator[Row | RowProblem]:
    """Every line of `stream` to its end, as a row or a problem; one bad line stops nothing."""
    for number, line in enumerate(_lines(stream), start=1):
        if line is None:
            yield RowProblem(number, RowReason.TOO_LARGE)
            continue
        content = line.removeprefix(_BOM) if number == 1 else line
        if content.strip():
            yield _parse(number, content)


def _lines(stream: BinaryIO) -> Iterator[bytes | None]:
    while line := stream.readline(MAX_LINE + 1):
        if len(line) <= MAX_LINE:
            yield line
            continue
        while line and not line.endswith(b"\n"):
            line = stream.readline(MAX_LINE)
        yield None


def strict_json(text: str) -> Any:  # noqa: ANN401 - whatever stands there
    """The value. Raises ValueError where it is not JSON, which knows neither NaN nor infinities; RecursionError."""
    return json.loads(text, parse_constant=_no_constant)


def _no_constant(name: str) -> object:
    raise ValueError(name)


def _parse(number: int, line: bytes) -> Row | RowProblem:
    try:
        text = line.decode()
    except UnicodeDecodeError:
        return RowProblem(number, RowReason.BAD_UTF8)
    try:
        value = strict_json(text)
    except (ValueError, RecursionError):  # RecursionError: nested deeper than any row needs
        return RowProblem(number, RowReason.NOT_JSON)
    return Row(number, value) if isinstance(value, dict) else RowProblem(number, RowReason.NOT_AN_OBJECT)


def text_of(row: dict[str, object], key: str) -> str | RowReason:
    """The non-empty text under `key`, or why there is none."""
    if key not in row:
        return RowReason.MISSING_KEY
    return checked_text(row[key])


def checked_text(value: object) -> str | RowReason:
    """`value` where it is a string with more than white space and has a UTF-8 form, else the reason."""
    if not isinstance(value, str):
        return RowReason.WRONG_TYPE
    if not value.strip():
        return RowReason.EMPTY_TEXT
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            return RowReason.INVALID_TEXT
    return value
