# SPDX-License-Identifier: Apache-2.0
"""Words that users bring: rows of kind `swap`, one set of words each.

    {"kind": "swap", "axis": "gender", "groups": ["male", "female"], "words": ["uncle", "aunt"], "tag": "noun"}

`words` stand in the order of `groups`; "" where a group has no such word. `tag` may be absent (`noun`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Self

from cloister_workers.messages import RowReason
from cloister_workers.trainer.debias.lexicon.terms import Lexicon, SwapSet
from cloister_workers.trainer.debias.material import row_kind
from cloister_workers.trainer.rows import checked_text, text_of

TAGS = ("noun", "adjective", "name", "function")


@row_kind("swap")
@dataclass(frozen=True)
class Swap:
    """One set of words of a user's own list."""

    axis: str
    groups: tuple[str, ...]
    words: tuple[str, ...]
    tag: str = "noun"

    @classmethod
    def parse(cls, row: Mapping[str, object]) -> Self | RowReason:
        axis = text_of(dict(row), "axis")
        if isinstance(axis, RowReason):
            return axis
        lists = [_strings(row, key) for key in ("groups", "words")]
        if problem := next((entry for entry in lists if isinstance(entry, RowReason)), None):
            return problem
        groups, words = (entry for entry in lists if not isinstance(entry, RowReason))
        if len(groups) < 2 or len(set(groups)) < len(groups) or len(words) != len(groups):
            return RowReason.WRONG_TYPE
        if not all(groups) or sum(map(bool, words)) < 2:
            return RowReason.EMPTY_TEXT
        tag = row.get("tag", "noun")
        return cls(axis, groups, words, tag) if isinstance(tag, str) and tag in TAGS else RowReason.WRONG_TYPE

    def keys(self) -> tuple[str, ...]:
        return tuple(f"word:{word}" for word in self.words if word)


def with_user_words(lexicons: Mapping[str, Lexicon], rows: Iterable[Swap], language: str) -> dict[str, Lexicon]:
    """`lexicons` with the users' words behind their own; an axis that is not among them comes to be.

    A row may name the groups in any order, and some of them only; a group that its axis does not have yet is added
    behind the others. Words that the axis has already are left as they are. Nothing is dropped: a set that joins a
    known word with a new one is a further set, behind the known one.
    """
    merged = dict(lexicons)
    for row in rows:
        lexicon = merged.get(row.axis) or Lexicon(row.axis, language, row.groups, ())
        merged[row.axis] = _with(lexicon, row)
    return merged


def _with(lexicon: Lexicon, row: Swap) -> Lexicon:
    new = tuple(group for group in row.groups if group not in lexicon.groups)
    if new:
        lexicon = replace(
            lexicon,
            groups=lexicon.groups + new,
            swaps=tuple(_widened(entry, len(new)) for entry in lexicon.swaps),
            names=tuple(_widened(entry, len(new)) for entry in lexicon.names),
        )
    by_group = dict(zip(row.groups, row.words, strict=True))
    words = tuple(by_group.get(group, "") for group in lexicon.groups)
    known = lexicon.names if row.tag == "name" else lexicon.swaps
    if any(entry.words == words for entry in known):
        return lexicon
    entry = SwapSet(words, row.tag, person="{}" if row.tag == "name" else "")
    if row.tag == "name":
        return replace(lexicon, names=(*known, entry))
    return replace(lexicon, swaps=(*known, entry))


def _widened(entry: SwapSet, by: int) -> SwapSet:
    return replace(entry, words=entry.words + ("",) * by)


def _strings(row: Mapping[str, object], key: str) -> tuple[str, ...] | RowReason:
    """A list of texts, of which some may be empty."""
    if key not in row:
        return RowReason.MISSING_KEY
    value = row[key]
    if not isinstance(value, list):
        return RowReason.WRONG_TYPE
    words = []
    for entry in value:
        checked = "" if entry == "" else checked_text(entry)
        if isinstance(checked, RowReason):
            return checked
        words.append(checked.strip())
    return tuple(words)
