# SPDX-License-Identifier: Apache-2.0
"""Pairs of texts that say the same of two groups: a table with `text_a`, `text_b`, `axis` and perhaps `template`.

The axis of a table without that column is the option `axis`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from cloister.formats.reading import Bad, Entry, Format, Head, Options, Row, axis_of, filled, option_axis, table_of

_TEXTS = ("text_a", "text_b")


def _fits(head: Head) -> bool:
    return set(_TEXTS) <= set(head.columns)


def _read(path: Path, options: Options) -> Iterator[Entry]:
    axis = option_axis(options, FORMAT.name)
    for line, record in table_of(path, wanted=_TEXTS if axis else (*_TEXTS, "axis")):
        yield line, record if isinstance(record, Bad) else _row(record, axis)


def _row(record: Mapping[str, str], axis: str) -> Row | Bad:
    known = axis_of(record["axis"]) if record.get("axis", "").strip() else axis or Bad("no axis")
    if isinstance(known, Bad):
        return known
    template = record.get("template", "")
    return filled(record, *_TEXTS) or {
        "kind": "pair",
        "axis": known,
        "first": record["text_a"],
        "second": record["text_b"],
        **({"template": template} if template else {}),
    }


FORMAT = Format("pairs", "pairs of texts, CSV or TSV", _fits, _read, options=frozenset({"axis"}))
