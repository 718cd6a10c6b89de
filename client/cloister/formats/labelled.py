# SPDX-License-Identifier: Apache-2.0
"""Labelled texts with group columns, CSV, TSV or Parquet.

Columns `text` and `label` (options `text` and `label` name others); a group column for each axis, as `--group
gender=sex` says; `person` and `template`, where the table has such columns or the options name them, tie rows that must
not be divided.  An empty group means that it is not known.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from cloister.errors import RowsError, UsageError
from cloister.formats.reading import Bad, Entry, Format, Head, Options, Row, axis_of, check_columns, table_of

_TABLES = (".csv", ".tsv", ".parquet")
_TIES = ("person", "template")
_BATCH = 1024


@dataclass(frozen=True)
class _Columns:
    text: str
    label: str
    groups: Mapping[str, str]
    """Axis to column."""
    ties: Mapping[str, str]
    """`person` and `template` to columns that the user named."""

    def wanted(self) -> list[str]:
        return [self.text, self.label, *self.groups.values(), *self.ties.values()]


def _fits(head: Head) -> bool:
    if head.suffix == ".parquet":
        return True
    text, label = head.options.get("text", "text"), head.options.get("label", "label")
    return head.suffix in _TABLES and {text, label} <= set(head.columns)


def _read(path: Path, options: Options) -> Iterator[Entry]:
    groups = {}
    for axis, column in options.groups.items():
        known = axis_of(axis)
        if isinstance(known, Bad):
            raise UsageError(f"--group {axis}={column}: {axis} is not a name such as gender")
        groups[known] = column
    ties = {name: options.get(name) for name in _TIES if options.get(name)}
    columns = _Columns(options.get("text", "text"), options.get("label", "label"), groups, ties)
    table: Iterator[tuple[int, Mapping[str, object] | Bad]]
    table = _parquet(path, columns) if path.suffix.lower() == ".parquet" else table_of(path, wanted=columns.wanted())
    for place, record in table:
        yield place, record if isinstance(record, Bad) else _row(record, columns)


def _row(record: Mapping[str, object], columns: _Columns) -> Row | Bad:
    text, label = record[columns.text], _word(record[columns.label])
    if not isinstance(text, str) or not text.strip():
        return Bad("no text")
    if not label:
        return Bad("its label is empty, or neither text nor a whole number")
    row: dict[str, object] = {"text": text, "label": label}
    groups = {axis: _word(record[column]) for axis, column in columns.groups.items()}
    if any(group is None for group in groups.values()):
        return Bad("a group is neither text nor a whole number")
    if columns.groups:
        row["groups"] = {axis: group for axis, group in groups.items() if group}
    for name in _TIES:
        if value := _word(record.get(columns.ties.get(name, name), "")):
            row[name] = value
    return row


def _word(value: object) -> str | None:
    """Text or a whole number as text; empty for what is not known; None for anything else."""
    if value is None or value != value:  # noqa: PLR0124 - a missing number in a table is NaN
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip() if isinstance(value, str | int) else None


def _parquet(path: Path, columns: _Columns) -> Iterator[tuple[int, Mapping[str, object]]]:
    """Rows from 1."""
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        raise UsageError(
            f"{path.name}: Parquet needs pyarrow; install cloister-client[parquet], or convert it to CSV"
        ) from None
    try:
        with parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            check_columns(path, names, columns.wanted())
            used = [name for name in names if name in {*columns.wanted(), *_TIES}]
            place = 0
            for batch in file.iter_batches(_BATCH, columns=used):
                for record in batch.to_pylist():
                    place += 1
                    yield place, record
    except (pa.ArrowException, OSError):
        raise RowsError(f"{path.name}: not a whole Parquet file; write it anew") from None


FORMAT = Format(
    "labelled",
    "labelled texts with group columns, CSV, TSV or Parquet",
    _fits,
    _read,
    options=frozenset({"text", "label", *_TIES}),
    groups=True,
    units={".parquet": "row"},
)
