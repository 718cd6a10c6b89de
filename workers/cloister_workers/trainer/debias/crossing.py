# SPDX-License-Identifier: Apache-2.0
"""Words and names of the test part: kept out of what a mitigation sees, and counted where they are not.

Word lists are divided by their words; rows are not. A row to fit on, or to choose by, that names a content word or
name of the test part on a mitigated axis is left out, unless too few rows would be left to learn from. What no list
has, such as a rare name, is not seen.

The other way round, test sets that were published speak of whatever they like. So the items of every measure are
marked that name what was at hand: a content word or name of the lists to fit on or to choose by, or a test word that
a row which stayed names. The mark is of lists and rows, not of what a mitigation made of them, so it says too much
rather than too little.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from cloister_workers.trainer.debias.labelled import BETWEEN
from cloister_workers.trainer.debias.lexicon.terms import Lexicon
from cloister_workers.trainer.debias.material import RowType
from cloister_workers.trainer.debias.measure import Items
from cloister_workers.trainer.debias.shapes import Labelled
from cloister_workers.trainer.debias.swapping import Swapper, Term

FEWEST = 25
"""Rows of a kind, and of each group of labelled rows, below which single rows would decide what is learned of it."""
FEWEST_TO_FIT, FEWEST_TO_CHOOSE = 25, 1
"""The same of each label of a group: to choose by, it is enough that none is gone."""
_TEXTS = ("text", "first", "second", "prompt", "chosen", "rejected")
Word = tuple[str, str]
"""Axis, and a word as its list has it."""


@dataclass(frozen=True)
class Sifted:
    """Rows to fit on or to choose by, in their order."""

    rows: tuple[RowType, ...]
    left_out: int
    crossing: int
    """Rows that stayed although they name a test word."""
    shared: frozenset[Word]
    """The test words that they name."""


class AtHand:
    """What of the words and names of the mitigated axes was there to mitigate with, or to choose by.

    `test` is the test part's lexicons of those axes, which know the words of the other parts as held out; `shared`
    are its own words that rows of the other parts name.
    """

    def __init__(self, test: Mapping[str, Lexicon], shared: Iterable[Word]) -> None:
        self._swapper = Swapper(test)
        self._shared = frozenset(shared)
        self._known: dict[str, bool] = {}

    def mark(self, items: Items) -> Items:
        """The items with `overlap` told, where the measure says what is read of them."""
        return replace(items, overlap=tuple(any(map(self._names, texts)) for texts in items.texts))

    def _names(self, text: str) -> bool:
        if text not in self._known:
            found = _content(self._swapper, (text,))
            self._known[text] = any(term.held_out or (axis, term.word) in self._shared for axis, term in found)
        return self._known[text]


def sift(rows: Sequence[RowType], test: Mapping[str, Lexicon], axes: Iterable[str], of_label: int) -> Sifted:
    """The rows without those that name a content word or name of `test`, the test part's lexicons of `axes`.

    All rows of a kind stay where one of its groups would lose some and keep fewer than FEWEST, or a label of one of
    them fewer than `of_label`.
    """
    swapper, names = Swapper(test), tuple(axes)
    named = {at: words for at, row in enumerate(rows) if (words := _own_words(swapper, row))}
    had = Counter(cell for row in rows for cell in _cells(row, names))
    lost = Counter(cell for at in named for cell in _cells(rows[at], names))
    short = {cell[0] for cell, count in lost.items() if had[cell] - count < (FEWEST if len(cell) == 2 else of_label)}
    staying = [at for at in named if type(rows[at]).__name__ in short]
    leaving = named.keys() - set(staying)
    return Sifted(
        rows=tuple(row for at, row in enumerate(rows) if at not in leaving),
        left_out=len(leaving),
        crossing=len(staying),
        shared=frozenset(word for at in staying for word in named[at]),
    )


def _own_words(swapper: Swapper, row: RowType) -> frozenset[Word]:
    texts = [getattr(row, name) for name in _TEXTS if hasattr(row, name)]
    return frozenset((axis, term.word) for axis, term in _content(swapper, texts) if not term.held_out)


def _content(swapper: Swapper, texts: Iterable[str]) -> list[tuple[str, Term]]:
    """Content words and names: function words are a closed class that stands in every part."""
    found = ((axis, term) for text in texts for axis in swapper.axes for term in swapper.terms_in(text, axis))
    return [(axis, term) for axis, term in found if term.tag != "function"]


def _cells(row: RowType, axes: Sequence[str]) -> list[tuple[str, ...]]:
    """Kind and group, and those with the label."""
    kind = type(row).__name__
    if not isinstance(row, Labelled):
        return [(kind, "")]
    group = BETWEEN.join(row.groups.get(axis, "") for axis in axes)
    return [(kind, group), (kind, group, row.label)]
