# SPDX-License-Identifier: Apache-2.0
"""What the readers of foreign formats share: lines, tables, axis names, and how a bad place is told.

A reader yields places with rows.  A place is a line, or a number of another unit where the file has no lines of its
own (`Format.unit`).  Whatever is wrong is told by place and in fixed words; nothing that a file says is repeated.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Never

from cloister.errors import RowsError, UsageError
from cloister.rows import BOM, MAX_LINE_BYTES, numbered_lines

Row = Mapping[str, object]
_HEAD_BYTES = 64 * 1024


@dataclass(frozen=True)
class Bad:
    """Why a place holds no row, in fixed words."""

    reason: str


Entry = tuple[int, Row | Bad]
"""A place, and the row that stands there."""


@dataclass(frozen=True)
class Options:
    """What a user says besides the file."""

    groups: Mapping[str, str] = field(default_factory=dict)
    """Axis to column, for tables with group columns."""
    values: Mapping[str, str] = field(default_factory=dict)
    """Further settings by name; a format lists those that it takes."""

    def get(self, name: str, default: str = "") -> str:
        return self.values.get(name, default)


@dataclass(frozen=True)
class Head:
    """The beginning of a file, for telling its format."""

    name: str
    """Of the file, without its folder."""
    text: str
    columns: tuple[str, ...]
    """Of the first record of a table with commas, or tabs; empty where it is none."""
    options: Options

    @property
    def suffix(self) -> str:
        return Path(self.name).suffix.lower()


@dataclass(frozen=True)
class Format:
    """A kind of file."""

    name: str
    what: str
    """One line for people."""
    fits: Callable[[Head], bool]
    read: Callable[[Path, Options], Iterator[Entry]]
    """Raises RowsError for a file that has no places at all."""
    options: frozenset[str] = frozenset()
    """Names of settings in `Options.values`."""
    groups: bool = False
    """Whether it takes group columns."""
    unit: str = "line"
    """What a place counts."""
    units: Mapping[str, str] = field(default_factory=dict)
    """The same by the end of a file's name, where it differs."""

    def unit_of(self, path: Path) -> str:
        return self.units.get(path.suffix.lower(), self.unit)


# ---------------------------------------------------------------- text
def lines_of(path: Path) -> Iterator[tuple[int, str | Bad]]:
    """Numbered lines with their ends, in UTF-8."""
    for number, line in numbered_lines(path):
        content = line.removeprefix(BOM) if number == 1 else line
        if len(content) > MAX_LINE_BYTES:
            yield number, Bad("too large")
            continue
        try:
            yield number, content.decode("utf-8")
        except UnicodeDecodeError:
            yield number, Bad("not UTF-8")


def json_lines(path: Path) -> Iterator[tuple[int, dict[str, object] | Bad]]:
    """An object from each line that is not blank."""
    for number, line in lines_of(path):
        if isinstance(line, Bad):
            yield number, line
        elif line.strip():
            yield number, object_of(line)


def json_objects(path: Path) -> Iterator[tuple[int, dict[str, object] | Bad]]:
    """The objects of a file that is one JSON list, counted from 1, or of a file of lines.  Raises RowsError."""
    with path.open("rb") as file:
        is_list = file.read(_HEAD_BYTES).removeprefix(BOM).lstrip().startswith(b"[")
    if not is_list:
        yield from json_lines(path)
        return
    found = json_file(path)
    for place, value in enumerate(found if isinstance(found, list) else (), start=1):
        yield place, value if isinstance(value, dict) else Bad("not an object")


def keys_of(head: Head) -> frozenset[str]:
    """Keys of the first object of a JSON list, or of lines; none where the beginning holds no whole object."""
    try:
        found, _ = json.JSONDecoder().raw_decode(head.text.lstrip().removeprefix("[").lstrip())
    except (ValueError, RecursionError):
        return frozenset()
    return frozenset(found) if isinstance(found, dict) else frozenset()


def object_of(text: str) -> dict[str, object] | Bad:
    """One JSON object."""
    try:
        value = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return Bad("not JSON")
    return value if isinstance(value, dict) else Bad("not an object")


def json_file(path: Path) -> object:
    """A file that is one JSON value.  Raises RowsError."""
    try:
        return json.loads(path.read_bytes().removeprefix(BOM).decode("utf-8"), parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise RowsError(f"{path.name}: not a JSON file in UTF-8; mend it, or name its --format") from None


def _refuse(_name: str) -> Never:
    raise ValueError("NaN and Infinity are not JSON")


# ---------------------------------------------------------------- tables
def table_of(
    path: Path, *, wanted: Sequence[str] = (), named: Sequence[str] = (), tabs: bool = False
) -> Iterator[tuple[int, dict[str, str] | Bad]]:
    """Records of a table by their column's name; commas, or `tabs`, as always where the file's name ends in .tsv.

    A record counts by its first line.  The first one names the columns, unless `named` does.  Raises RowsError where
    a wanted column is lacking.
    """
    tabs = tabs or path.suffix.lower() == ".tsv"
    records = _tab_records(path) if tabs else _comma_records(path)
    header: list[str] | Bad = list(named)
    if not header:
        _, header = next(records, (0, []))
    if isinstance(header, Bad):
        raise RowsError(f"{path.name}: line 1 ({header.reason}); mend it")
    columns = [name.strip() for name in header]
    check_columns(path, columns, wanted)
    for number, record in records:
        if isinstance(record, Bad):
            yield number, record
        elif tabs and len(record) < len(columns):
            # Editors cut empty cells off the end of a line.
            yield number, dict(zip(columns, record + [""] * (len(columns) - len(record)), strict=True))
        elif len(record) != len(columns):
            yield number, Bad(f"{len(record)} columns, {'--option' if named else 'the first line'} has {len(columns)}")
        else:
            yield number, dict(zip(columns, record, strict=True))


def check_columns(path: Path, columns: Sequence[str], wanted: Sequence[str]) -> None:
    """Raise RowsError where a wanted column is not there, or one stands twice."""
    lacking = [name for name in wanted if name not in columns]
    if lacking:
        raise RowsError(f"{path.name}: its first line names no column {', '.join(lacking)}; name the columns there")
    if len(set(columns)) != len(columns):
        raise RowsError(f"{path.name}: its first line names a column twice; rename one")


def _tab_records(path: Path) -> Iterator[tuple[int, list[str] | Bad]]:
    """Tabs divide, and nothing is quoted.  Lines that begin with # are remarks."""
    for number, line in lines_of(path):
        if isinstance(line, Bad):
            yield number, line
        elif line.strip() and not line.startswith("#"):
            yield number, [cell.strip() for cell in line.rstrip("\r\n").split("\t")]


def _comma_records(path: Path) -> Iterator[tuple[int, list[str] | Bad]]:
    csv.field_size_limit(MAX_LINE_BYTES)
    bad: list[tuple[int, Bad]] = []
    reader = csv.reader(_texts(path, bad), strict=True)
    first = 1
    while True:
        try:
            record = next(reader, None)
        except csv.Error:
            # From here on nothing says where a record begins.
            yield first, Bad("its quotes or separators are not those of a CSV file; the rest was not read")
            return
        if bad:
            yield bad[0]
            return
        if record is None:
            return
        if record:
            yield first, record
        first = reader.line_num + 1


def _texts(path: Path, bad: list[tuple[int, Bad]]) -> Iterator[str]:
    """Lines up to the first that is none; that one goes to `bad`."""
    for number, line in lines_of(path):
        if isinstance(line, Bad):
            bad.append((number, line))
            return
        yield line


# ---------------------------------------------------------------- values
_AXIS = re.compile(r"[a-z][a-z0-9_]{0,31}(\*[a-z][a-z0-9_]{0,31})*")
_AXES = {
    "race": "ethnicity",
    "race_color": "ethnicity",
    "race_ethnicity": "ethnicity",
    "gender_identity": "gender",
    "disability_status": "disability",
    "ses": "socioeconomic",
    "physical": "physical_appearance",
    "race_x_gender": "ethnicity*gender",
    "race_x_ses": "ethnicity*socioeconomic",
}


def axis_of(name: str) -> str | Bad:
    """The axis as specifications name it: published names are many, `race-color` and `Race_ethnicity` are ethnicity."""
    plain = re.sub(r"[\s-]+", "_", name.strip().lower())
    found = _AXES.get(plain, plain)
    return found if _AXIS.fullmatch(found) else Bad("its axis is not a name such as gender")


def option_axis(options: Options, format_name: str) -> str:
    """The axis that the user says for a whole file; empty where none.  Raises UsageError."""
    found = axis_of(options.get("axis")) if options.get("axis") else ""
    if isinstance(found, Bad):
        raise UsageError(f"--option axis of {format_name}: not a name such as gender")
    return found


def first_bad(values: Sequence[object]) -> Bad | None:
    """The first of them that is one."""
    return next((value for value in values if isinstance(value, Bad)), None)


def filled(row: Mapping[str, object], *names: str) -> Bad | None:
    """Whether every one of these is a text that says something."""
    for name in names:
        value = row.get(name)
        if not isinstance(value, str):
            return Bad(f"no text under {name}")
        if not value.strip():
            return Bad(f"empty {name}")
    return None
