# SPDX-License-Identifier: Apache-2.0
"""Texts that differ in the group, with the group of each: what linear erasures and pair consistency are fitted on.

Made from word lists (every template with every word of a set), from texts with their swapped copies, from users' pairs
(`first` always speaks of one group, `second` of the other), or taken from labelled rows that state their groups.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cloister_workers.trainer.debias.kinds import FloatArray, IntArray
from cloister_workers.trainer.debias.lexicon import Lexicon, fill
from cloister_workers.trainer.debias.shapes import Labelled, Pair
from cloister_workers.trainer.debias.swapping import Swapped, Swapper

NO_SET = -1


@dataclass(frozen=True)
class Counterpart:
    """One text. Texts of one `set` say the same of several groups."""

    text: str
    axis: str
    group: str
    set: int
    source: str
    """`name`, `word`, `person`, `pair`, `text` or `row`: names and nouns show a group in different ways."""


def from_words(lexicons: Mapping[str, Lexicon], most: int) -> list[Counterpart]:
    """Every set of words and of persons in templates, in turn; about `most` texts in all, fewer where fewer can be
    made. Each set gets as many templates as any other.
    """
    makers = [maker for lexicon in lexicons.values() for maker in _makers(lexicon)]
    share = max(1, most // max(sum(len(maker.groups) for maker in makers), 1))
    found: list[Counterpart] = []
    number = 0
    for place, maker in enumerate(makers):
        for step in range(min(share, len(maker.texts))):
            # neighbours among the sets start at different templates, so that few templates still all occur
            texts = maker.texts[(place + step) % len(maker.texts)]
            for group, text in zip(maker.groups, texts, strict=True):
                found.append(Counterpart(text, maker.axis, group, number, maker.source))
            number += 1
    return found


def from_swaps(texts: Iterable[str], lexicons: Mapping[str, Lexicon], seed: int) -> list[Counterpart]:
    """Texts that speak of one group, each with its swapped copy."""
    swapper = Swapper(lexicons)
    found: list[Counterpart] = []
    for number, (text, axis) in enumerate((text, axis) for text in dict.fromkeys(texts) for axis in swapper.axes):
        swapped = swapper.swap(text, axis, seed=seed)
        if isinstance(swapped, Swapped) and len(swapper.groups_of(text, axis)) == 1:
            found.append(Counterpart(text, axis, swapped.group_from, number, "text"))
            found.append(Counterpart(swapped.text, axis, swapped.group_to, number, "text"))
    return found


def from_pairs(rows: Iterable[Pair], axes: Sequence[str]) -> list[Counterpart]:
    """Users' pairs of these axes."""
    found: list[Counterpart] = []
    for number, row in enumerate(rows):
        if row.axis in axes:
            found.append(Counterpart(row.first, row.axis, "first", number, "pair"))
            found.append(Counterpart(row.second, row.axis, "second", number, "pair"))
    return found


def from_rows(rows: Iterable[Labelled], axes: Sequence[str]) -> list[Counterpart]:
    """Labelled rows that state their group on one of these axes, once for each; they have no counterparts."""
    return [
        Counterpart(row.text, axis, row.groups[axis], NO_SET, "row")
        for row in rows
        for axis in axes
        if axis in row.groups
    ]


def joined(lists: Iterable[Sequence[Counterpart]]) -> list[Counterpart]:
    """One list of several, with sets numbered anew so that none is shared."""
    found: list[Counterpart] = []
    start = 0
    for entries in lists:
        found += [entry if entry.set == NO_SET else replace(entry, set=entry.set + start) for entry in entries]
        start += 1 + max((entry.set for entry in entries), default=0)
    return found


def sets_of(entries: Sequence[Counterpart]) -> IntArray:
    """The set of each, int64 [n]."""
    return np.array([entry.set for entry in entries], dtype=np.int64)


def numbered(names: Sequence[str]) -> IntArray:
    """The number of each name, in the order in which they first occur: int64 [n]."""
    place = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return np.array([place[name] for name in names], dtype=np.int64)


def one_hot(entries: Sequence[Counterpart], *, by_source: bool) -> FloatArray:
    """Z [n, k]: a column for each group of each axis, or of each axis and source; 1 for the texts that are of it."""
    keys = numbered([f"{entry.axis}:{entry.group}:{entry.source if by_source else ''}" for entry in entries])
    table: FloatArray = np.eye(int(keys.max(initial=-1)) + 1)[keys]
    return table


@dataclass(frozen=True)
class _Maker:
    """One set of words or persons; `texts` holds for each template one text a group."""

    axis: str
    source: str
    groups: tuple[str, ...]
    texts: list[tuple[str, ...]]


def _makers(lexicon: Lexicon) -> Iterator[_Maker]:
    for entry in (*lexicon.swaps, *lexicon.names):
        present = [(group, word) for group, word in zip(lexicon.groups, entry.words, strict=True) if word]
        if len(present) > 1 and lexicon.templates:
            texts = [tuple(fill(template, word=word) for _, word in present) for template in lexicon.templates]
            source = "name" if entry.tag == "name" else "word"
            yield _Maker(lexicon.axis, source, tuple(group for group, _ in present), texts)
    attributes = tuple(dict.fromkeys(word for entry in lexicon.associations for word in (*entry.first, *entry.second)))
    templates = [template for template in lexicon.pair_templates if attributes or "{attribute}" not in template]
    for number, people in enumerate(lexicon.persons() if templates else ()):
        texts = []
        for place, template in enumerate(templates):
            attribute = attributes[(number + place * 7) % len(attributes)] if attributes else ""
            texts.append(tuple(fill(template, person=person, attribute=attribute) for person in people))
        yield _Maker(lexicon.axis, "person", lexicon.groups, texts)
