# SPDX-License-Identifier: Apache-2.0
"""Word lists: a table with tabs, one column a group, one set of words that stand for each other a line.

    tag    male     female
    noun   uncle    aunt
    noun   waiter   waitress

`tag` (noun, adjective, name or function; noun where there is no such column) and `axis` are columns of their own; the
axis of a list without that column is the option `axis`.  A cell is empty where a group has no such word.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from cloister.errors import RowsError
from cloister.formats.reading import Bad, Entry, Format, Head, Options, Row, axis_of, option_axis, table_of

_TAGS = ("noun", "adjective", "name", "function")
_OWN = ("axis", "tag")
_OTHERS = ("use", "person")


def _fits(head: Head) -> bool:
    axis = "axis" in head.columns or bool(head.options.get("axis"))
    return head.suffix == ".tsv" and axis and len([name for name in head.columns if name not in _OWN]) >= 2


def _read(path: Path, options: Options) -> Iterator[Entry]:
    axis = option_axis(options, FORMAT.name)
    for line, record in table_of(path, wanted=() if axis else ("axis",)):
        if isinstance(record, Bad):
            yield line, record
            continue
        if stray := [name for name in _OTHERS if name in record]:
            raise RowsError(f"{path.name}: the column {stray[0]} belongs to built-in lists only; remove it")
        yield line, _row(record, axis)


def _row(record: Mapping[str, str], axis: str) -> Row | Bad:
    known = axis_of(record["axis"]) if record.get("axis") else axis or Bad("no axis")
    if isinstance(known, Bad):
        return known
    words = {group: word for group, word in record.items() if group not in _OWN}
    if len(words) < 2 or not all(words):
        return Bad("fewer than two groups, or a group without a name in the first line")
    if sum(map(bool, words.values())) < 2:
        return Bad("fewer than two words")
    tag = record.get("tag") or _TAGS[0]
    if tag not in _TAGS:
        return Bad(f"tag is none of {', '.join(_TAGS)}")
    return {"kind": "swap", "axis": known, "groups": list(words), "words": list(words.values()), "tag": tag}


FORMAT = Format("lexicon", "word lists, TSV", _fits, _read, options=frozenset({"axis"}))
