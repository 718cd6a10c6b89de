# SPDX-License-Identifier: Apache-2.0
"""Several files as the rows of one dataset, read anew each time: nothing of them is kept in plaintext anywhere.

A push reads them twice: once to check every row and to name the whole by its digest, once into the sealing.  What was
sealed is compared with what was checked, so a file that changes in between is noticed.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cloister.errors import RowsError, UsageError
from cloister.formats import ROWS, choose_check, choose_format
from cloister.formats.reading import Bad, Format, Options, Row
from cloister.formats.shapes import Check
from cloister.push import changed
from cloister.rows import BOM, MAX_LINE_BYTES, SHOWN, numbered_lines, row_of


@dataclass(frozen=True)
class PartSummary:
    """What is known of one file whose rows are good."""

    name: str
    format: str
    rows: int
    axes: Mapping[str, int]
    """Rows by axis, where they name one."""
    without_target: int
    """BBQ rows that count in the accuracy alone."""


@dataclass(frozen=True)
class StreamSummary:
    """What is known of the whole."""

    sha256: str
    """Of the rows as they are sealed, hex."""
    size: int
    """Bytes."""
    rows: int
    parts: tuple[PartSummary, ...]


@dataclass(frozen=True)
class Part:
    """One file."""

    path: Path
    format: Format | None
    """None for JSONL that is sealed as it is."""
    options: Options
    check: Check | None = None
    """What every row must hold."""

    @staticmethod
    def of(path: Path, format_name: str, options: Options, check: Check | None) -> Part:
        """A file with what is known of its rows.  Raises UsageError."""
        found = choose_format(path, format_name, options)
        return Part(path, found, options, check or (None if found else choose_check(path, format_name)))

    @property
    def unit(self) -> str:
        return self.format.unit_of(self.path) if self.format else "line"

    def rows(self) -> Iterator[tuple[int, bytes | Bad, Row]]:
        """Place, the line as it is sealed, and the row where it was converted."""
        if self.format is None:
            yield from ((number, line, {}) for number, line in numbered_lines(self.path))
            return
        for place, found in self.format.read(self.path, self.options):
            row: Row = {} if isinstance(found, Bad) else found
            yield place, found if isinstance(found, Bad) else _line(found), row


class RowStream:
    """The files, in order."""

    def __init__(
        self,
        paths: Sequence[str | Path],
        format_name: str = "",
        options: Options | None = None,
        check: Check | None = None,
    ) -> None:
        """Tell each file's format, unless `format_name` does, and what rows must hold, unless `check` does.

        Raises UsageError for one of no known format, or settings that no file takes.
        """
        if not paths:
            raise UsageError("name at least one file")
        options = options or Options()
        self._summary: StreamSummary | None = None
        self.parts = tuple(Part.of(path, format_name, options, check) for path in map(Path, paths))
        _check_options(self.parts, options)

    @property
    def name(self) -> str:
        """For messages."""
        first = self.parts[0].path.name
        return first if len(self.parts) == 1 else f"{first} and {len(self.parts) - 1} more"

    def check(self) -> StreamSummary:
        """Read every row, the first time.  Raises RowsError with the first bad places, UsageError where it cannot."""
        self._summary = self._summary or self._check()
        return self._summary

    def _check(self) -> StreamSummary:
        digest, size, summaries = hashlib.sha256(), 0, []
        for number, part in enumerate(self.parts):
            counted = _Counted()
            for line in _checked(part, counted, is_first=number == 0, is_last=number == len(self.parts) - 1):
                digest.update(line)
                size += len(line)
            summaries.append(counted.summary(part))
        return StreamSummary(digest.hexdigest(), size, sum(entry.rows for entry in summaries), tuple(summaries))

    def lines(self) -> Iterator[bytes]:
        """What is sealed.  Raises UsageError where a row is no longer good."""
        for number, part in enumerate(self.parts):
            ends = {"is_first": number == 0, "is_last": number == len(self.parts) - 1}
            try:
                yield from _checked(part, _Counted(), **ends)
            except RowsError:
                raise changed(part.path.name) from None


def check_rows(path: Path) -> StreamSummary:
    """Check a JSONL file.  Raises RowsError with the first bad line numbers, UsageError for an unreadable file."""
    return RowStream([path], ROWS).check()


class LineSource:
    """Lines as a byte source."""

    def __init__(self, lines: Iterator[bytes]) -> None:
        self._lines = lines
        self._left = memoryview(b"")

    def readinto(self, buffer: bytearray | memoryview, /) -> int:
        """Put the next bytes into `buffer`; 0 at the end."""
        while not self._left:
            line = next(self._lines, None)
            if line is None:
                return 0
            self._left = memoryview(line)
        count = min(len(buffer), len(self._left))
        buffer[:count] = self._left[:count]
        self._left = self._left[count:]
        return count


class _Counted:
    """Counts the rows of one file."""

    def __init__(self) -> None:
        self.rows = 0
        self.axes: Counter[str] = Counter()
        self.without_target = 0

    def add(self, row: Row) -> None:
        self.rows += 1
        if isinstance(axis := row.get("axis"), str):
            self.axes[axis] += 1
        self.without_target += row.get("kind") == "bbq" and row["target"] is None

    def summary(self, part: Part) -> PartSummary:
        name = part.format.name if part.format else ROWS
        return PartSummary(part.path.name, name, self.rows, dict(self.axes), self.without_target)


def _checked(part: Part, counted: _Counted, *, is_first: bool, is_last: bool) -> Iterator[bytes]:
    """The lines of a file as they are sealed; raises at the end where some were bad."""
    problems: list[str] = []
    bad = 0
    try:
        for place, found, row in part.rows():
            line = _joined(place, found, is_first=is_first, is_last=is_last)
            reason = line.reason if isinstance(line, Bad) else _reason(part, place, line, row)
            if reason is not None:
                counted.rows += 1
                bad += 1
                if len(problems) < SHOWN:
                    problems.append(f"{place} ({reason})")
            elif not isinstance(line, Bad):
                if line.strip():
                    counted.add(row)
                yield line
    except OSError as error:
        raise UsageError(
            f"{part.path}: {(error.strerror or 'unreadable').lower()}; name a JSONL file, or one of a known format"
        ) from None
    if bad:
        more = f" and {bad - SHOWN} more" if bad > SHOWN else ""
        places = ", ".join(problems)
        raise RowsError(
            f"{part.path.name}: {bad} of {counted.rows} rows are bad: {part.unit} {places}{more}; mend them"
        )
    if not counted.rows:
        raise RowsError(f"{part.path.name}: it has no rows; write one JSON object per line")


def _joined(place: int, found: bytes | Bad, *, is_first: bool, is_last: bool) -> bytes | Bad:
    """Files are joined at line ends; the byte order mark of a file that is not the first would be no mark any more."""
    if isinstance(found, Bad):
        return found
    line = found.removeprefix(BOM) if place == 1 and not is_first else found
    return line if is_last or line.endswith(b"\n") else line + b"\n"


def _reason(part: Part, place: int, line: bytes, row: Row) -> str | None:
    if part.format is not None:
        found: Row | str = "too large" if len(line) > MAX_LINE_BYTES else row
    else:
        content = line.removeprefix(BOM) if place == 1 else line
        if not content.strip():
            return None
        found = row_of(content)
    if isinstance(found, str):
        return found
    problem = part.check(found) if part.check else None
    return problem.reason if problem else None


def _line(row: Row) -> bytes | Bad:
    try:
        return json.dumps(row, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode("utf-8") + b"\n"
    except (UnicodeEncodeError, ValueError):
        return Bad("a text of it is no Unicode text")


def _check_options(parts: Sequence[Part], options: Options) -> None:
    """A setting that no file takes was meant for something."""
    known = {name for part in parts if part.format for name in part.format.options}
    stray = sorted(set(options.values) - known)
    if stray:
        takes = ", ".join(sorted(known)) or "none"
        raise UsageError(f"--option {stray[0]}: these files do not take it; they take: {takes}")
    if options.groups and not any(part.format and part.format.groups for part in parts):
        raise UsageError("--group: only labelled tables (CSV, TSV, Parquet) have group columns")
