# SPDX-License-Identifier: Apache-2.0
"""Word lists: a table with tabs, one column a group, one set of words that stand for each other a line.

    tag    male     female
    noun   uncle    aunt
    noun   waiter   waitress

`tag` (noun, adjective, name or function; noun where there is no such column) and `axis` are columns of their own; the
axis of a list without that column is the option `axis`.  A cell is empty where a group has no such word.

Published lists often have no first line that names the groups, and give each pair both ways (`generalized_swaps.txt` of
WinoBias).  Read as they stand, a pair would become the names of the groups, and half of the words would go to the
wrong group; so both are told.  The option `groups` names the columns of a list without such a line.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations
from pathlib import Path

from cloister.errors import RowsError
from cloister.formats.reading import Bad, Entry, Format, Head, Options, Row, axis_of, option_axis, table_of

_TAGS = ("noun", "adjective", "name", "function")
_OWN = ("axis", "tag")
_OTHERS = ("use", "person")
_TABLES = (".tsv", ".csv")


def _fits(head: Head) -> bool:
    named = _named(head.options) or head.columns
    axis = "axis" in named or bool(head.options.get("axis"))
    return head.suffix == ".tsv" and axis and len([name for name in named if name not in _OWN]) >= 2


def _named(options: Options) -> tuple[str, ...]:
    return tuple(name.strip() for name in options.get("groups").split(",") if name.strip())


def _read(path: Path, options: Options) -> Iterator[Entry]:
    axis, named = option_axis(options, FORMAT.name), _named(options)
    wanted, seen = () if axis else ("axis",), _Seen()
    for line, record in table_of(path, wanted=wanted, named=named, tabs=path.suffix.lower() != ".csv"):
        if isinstance(record, Bad):
            yield line, record
            continue
        if stray := [name for name in _OTHERS if name in record]:
            raise RowsError(f"{path.name}: the column {stray[0]} belongs to built-in lists only; remove it")
        words = {group: word for group, word in record.items() if group not in _OWN}
        if not named and _starts_with_words(path, record, words):
            raise RowsError(
                f"{path.name}: its first line does not name the groups but holds words, or cannot be told from such a "
                "line; say --option groups=male,female, or name axis, tag and groups in a first line"
            )
        yield line, _ROUND if seen.other_way_round(words) else _row(record, axis)


def _starts_with_words(path: Path, record: Mapping[str, str], words: Mapping[str, str]) -> bool:
    """Whether names of the first line come back in another column; a plain text file has to show that it is a table."""
    table = path.suffix.lower() in _TABLES or any(name in record for name in _OWN)
    return not table or any(word in words and word != group for group, word in words.items())


_ROUND = Bad("words of an earlier line the other way round; keep one line a pair, each word under its group")


class _Seen:
    """Pairs of words that stand in two columns."""

    def __init__(self) -> None:
        self._pairs: set[tuple[tuple[str, str], tuple[str, str]]] = set()

    def other_way_round(self, words: Mapping[str, str]) -> bool:
        """Whether two words of this line have stood in each other's columns; else they are remembered."""
        pairs = [
            pair for pair in combinations(words.items(), 2) if pair[0][1] and pair[1][1] and pair[0][1] != pair[1][1]
        ]
        if any(((group, other_word), (other, word)) in self._pairs for (group, word), (other, other_word) in pairs):
            return True
        self._pairs.update(pairs)
        return False


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


FORMAT = Format("lexicon", "word lists, TSV", _fits, _read, options=frozenset({"axis", "groups"}))
