# SPDX-License-Identifier: Apache-2.0
"""Preferences: JSONL with `prompt`, `chosen`, `rejected` and perhaps `axis`, all texts.

Such rows need no conversion; named as this format they are checked more closely, and other keys stay behind.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from cloister.formats.reading import Bad, Entry, Format, Head, Options, Row, axis_of, filled, json_lines, option_axis

_TEXTS = ("prompt", "chosen", "rejected")


def _fits(_head: Head) -> bool:
    return False


def _read(path: Path, options: Options) -> Iterator[Entry]:
    axis = option_axis(options, FORMAT.name)
    for line, found in json_lines(path):
        yield line, found if isinstance(found, Bad) else _row(found, axis)


def _row(found: Mapping[str, object], axis: str) -> Row | Bad:
    said = found.get("axis", axis)
    known = axis_of(said) if isinstance(said, str) and said else ""
    if isinstance(known, Bad):
        return known
    row = {name: found.get(name) for name in _TEXTS}
    if problem := filled(row, *_TEXTS):
        return problem
    if row["chosen"] == row["rejected"]:
        return Bad("chosen and rejected are the same")
    return {**row, **({"axis": known} if known else {})}


FORMAT = Format("preferences", "preferences, JSONL", _fits, _read, options=frozenset({"axis"}))
