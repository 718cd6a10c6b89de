# SPDX-License-Identifier: Apache-2.0
"""Rows of a dataset, checked before they are sealed: afterwards nobody but the worker can look.

One JSON object per line, UTF-8.  Blank lines are allowed and count as lines, so a row's number is its line's.
Errors name line numbers and reasons, never what a row says.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Never

from cloister.errors import RowsError, UsageError

MAX_LINE_BYTES = 4 * 1024 * 1024
SHOWN = 10
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class RowsSummary:
    """What is known of a file whose rows are good."""

    sha256: str
    """Of the whole file, hex."""
    size: int
    """Bytes."""
    rows: int
    """Lines that hold an object."""


def check_rows(path: Path) -> RowsSummary:
    """Read every line.  Raises RowsError with the first bad line numbers, UsageError for an unreadable file."""
    try:
        with path.open("rb") as file:
            return _check(file, path)
    except OSError as error:
        raise UsageError(f"{path}: {(error.strerror or 'unreadable').lower()}; name a JSONL file") from None


def _check(file: BinaryIO, path: Path) -> RowsSummary:
    reader = _Lines(file)
    problems: list[str] = []
    rows = bad = 0
    for number, line in enumerate(reader, start=1):
        content = line.removeprefix(_BOM) if number == 1 else line
        if not content.strip():
            continue
        rows += 1
        if (reason := problem_of(content)) is not None:
            bad += 1
            if len(problems) < SHOWN:
                problems.append(f"{number} ({reason})")
    if bad:
        more = f" and {bad - SHOWN} more" if bad > SHOWN else ""
        raise RowsError(f"{path.name}: {bad} of {rows} rows are bad: line {', '.join(problems)}{more}; mend them")
    if not rows:
        raise RowsError(f"{path.name}: it has no rows; write one JSON object per line")
    return RowsSummary(reader.digest.hexdigest(), reader.size, rows)


def problem_of(line: bytes) -> str | None:
    """Why a line is no row, in fixed words; None for a good one."""
    if len(line) > MAX_LINE_BYTES:
        return "too large"
    try:
        value = json.loads(line.decode("utf-8"), parse_constant=_refuse)
    except UnicodeDecodeError:
        return "not UTF-8"
    except (ValueError, RecursionError):
        return "not JSON"
    return None if isinstance(value, dict) else "not an object"


def _refuse(_name: str) -> Never:
    raise ValueError("NaN and Infinity are not JSON")


class _Lines:
    """Lines with their ends, hashed as they are read; of one that is too long only its beginning is kept."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.digest = hashlib.sha256()
        self.size = 0

    def __iter__(self) -> Iterator[bytes]:
        while line := self._read():
            last = line
            while len(last) > MAX_LINE_BYTES and not last.endswith(b"\n"):
                last = self._read()
            yield line

    def _read(self) -> bytes:
        line = self._file.readline(MAX_LINE_BYTES + 1)
        self.digest.update(line)
        self.size += len(line)
        return line
