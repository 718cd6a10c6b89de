# SPDX-License-Identifier: Apache-2.0
"""Readers of the files in which training data and test sets for bias come: one module a format, pure Python.

Each turns a file into rows of a dataset, as docs/how-to/bring-your-data.md and docs/how-to/bring-bias-test-sets.md list
them.  A new format is a new
module with a `FORMAT` and its line below.

    reading.py    what readers share
    shapes.py     what rows of each training method must hold
    stream.py     several files as one stream of rows
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

from cloister.errors import UsageError
from cloister.formats import (
    alpaca,
    association,
    bbq,
    crows_pairs,
    labelled,
    lexicon,
    openai_preferences,
    pairs,
    preferences,
    sharegpt,
    stereoset,
    winobias,
    winogender,
)
from cloister.formats.reading import Format, Head, Options, json_lines
from cloister.formats.shapes import SHAPES, Check, look_of
from cloister.rows import BOM

ROWS = "rows"
"""The name of JSONL that is sealed as it is."""
FORMATS: Mapping[str, Format] = {
    module.FORMAT.name: module.FORMAT
    for module in (
        crows_pairs,
        stereoset,
        bbq,
        winobias,
        winogender,
        association,
        pairs,
        labelled,
        lexicon,
        preferences,
        alpaca,
        sharegpt,
        openai_preferences,
    )
}
"""By name, in the order in which they are tried."""
_HEAD_BYTES = 64 * 1024
_PLAIN = (".jsonl", ".json", ".ndjson", "")


def choose_format(path: Path, name: str, options: Options) -> Format | None:
    """The format that is named, or that the file looks like; None for rows that are sealed as they are.

    Raises UsageError where it looks like none, or cannot be read.
    """
    if name == ROWS or name in SHAPES:
        return None
    if name:
        if name not in FORMATS:
            raise UsageError(f"--format {name[:40]}: choose one of {', '.join((ROWS, *FORMATS, *SHAPES))}")
        return FORMATS[name]
    head = _head(path, options)
    found = next((entry for entry in FORMATS.values() if entry.fits(head)), None)
    if found is None and head.suffix not in _PLAIN and not head.text.lstrip().startswith("{"):
        raise UsageError(f"{path.name}: it is in no known format; add --format with one of {', '.join(FORMATS)}")
    return found


def choose_check(path: Path, name: str) -> Check | None:
    """What rows that are sealed as they are must hold: what is named, or what the first row looks like."""
    if name:
        return SHAPES.get(name)
    first = next((found for _, found in json_lines(path)), None)
    return look_of(first) if isinstance(first, dict) else None


def _head(path: Path, options: Options) -> Head:
    try:
        with path.open("rb") as file:
            text = file.read(_HEAD_BYTES).removeprefix(BOM).decode("utf-8", "replace")
    except OSError as error:
        raise UsageError(f"{path}: {(error.strerror or 'unreadable').lower()}; name a file") from None
    return Head(path.name, text, _columns(text, path.suffix.lower()), options)


def _columns(text: str, suffix: str) -> tuple[str, ...]:
    if suffix not in (".csv", ".tsv"):
        return ()
    lines = [line for line in text.splitlines() if line.strip() and not (suffix == ".tsv" and line.startswith("#"))]
    if not lines:
        return ()
    if suffix == ".tsv":
        return tuple(cell.strip() for cell in lines[0].split("\t"))
    try:
        return tuple(cell.strip() for cell in next(csv.reader(lines[:1])))
    except csv.Error:
        return ()
