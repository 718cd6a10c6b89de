# SPDX-License-Identifier: Apache-2.0
"""Texts that differ in the group, with the group of each: what linear erasures are fitted on.

Made from word lists (every template with every word of a set), from texts with their swapped copies, from users' pairs
(`first` always speaks of one group, `second` of the other), or taken from labelled rows that state their groups.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cloister_workers.trainer.debias.kinds import FloatArray, IntArray
from cloister_workers.trainer.debias.lexicon import Lexicon, fill
from cloister_workers.trainer.debias.shapes import Labelled, Pair
from cloister_workers.trainer.debias.swapping import Swapped, Swapper

NO_SET = -1


@dataclass(frozen=True)
class Contrast:
    """One text. Texts of one `set` say the same of several groups."""

    text: str
    axis: str
    group: str
    set: int
    source: str
    """`name`, `word`, `person`, `pair`, `text` or `row`: names and nouns show a group in different ways."""


def from_words(lexicons: Mapping[str, Lexicon], most: int) -> list[Contrast]:
    """Every set of words and of persons in templates, in turn; about `most` texts in all, fewer where fewer can be
    made. Each set gets as many templates as any other.
    """
    makers = [maker for lexicon in lexicons.values() for maker in _makers(lexicon)]
    groups = sum(len(texts[0]) for _, texts in makers)
    share = max(1, most // max(groups, 1))
    found: list[Contrast] = []
    number = 0
    for place, ((axis, source, names), texts) in enumerate(makers):
        for step in range(min(share, len(texts))):
            # neighbours among the sets start at different templates, so that few templates still all occur
            chosen = texts[(place + step) % len(texts)]
            found += [Contrast(text, axis, name, number, source) for name, text in zip(names, chosen, strict=True)]
            number += 1
    return found


def from_swaps(texts: Iterable[str], lexicons: Mapping[str, Lexicon], seed: int) -> list[Contrast]:
    """Texts that speak of one group, each with its swapped copy."""
    swapper = Swapper(lexicons)
    found: list[Contrast] = []
    for number, (text, axis) in enumerate((text, axis) for text in dict.fromkeys(texts) for axis in swapper.axes):
        swapped = swapper.swap(text, axis, seed=seed)
        if isinstance(swapped, Swapped) and len(swapper.groups_of(text, axis)) == 1:
            found.append(Contrast(text, axis, swapped.group_from, number, "text"))
            found.append(Contrast(swapped.text, axis, swapped.group_to, number, "text"))
    return found


def from_pairs(rows: Iterable[Pair], axes: Sequence[str]) -> list[Contrast]:
    """Users' pairs of these axes."""
    found: list[Contrast] = []
    for number, row in enumerate(rows):
        if row.axis in axes:
            found.append(Contrast(row.first, row.axis, "first", number, "pair"))
            found.append(Contrast(row.second, row.axis, "second", number, "pair"))
    return found


def from_rows(rows: Iterable[Labelled], axes: Sequence[str]) -> list[Contrast]:
    """Labelled rows that state their group on one of these axes, once for each; they have no counterparts."""
    return [
        Contrast(row.text, axis, row.groups[axis], NO_SET, "row") for row in rows for axis in axes if axis in row.groups
    ]


def joined(lists: Iterable[Sequence[Contrast]]) -> list[Contrast]:
    """One list of several, with sets numbered anew so that none is shared."""
    found: list[Contrast] = []
    start = 0
    for contrasts in lists:
        found += [
            Contrast(c.text, c.axis, c.group, c.set if c.set == NO_SET else c.set + start, c.source) for c in contrasts
        ]
        start += 1 + max((c.set for c in contrasts), default=0)
    return found


def sets_of(contrasts: Sequence[Contrast]) -> IntArray:
    """The set of each, int64 [n]."""
    return np.array([contrast.set for contrast in contrasts], dtype=np.int64)


def numbered(names: Sequence[str]) -> IntArray:
    """The number of each name, in the order in which they first occur: int64 [n]."""
    place = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return np.array([place[name] for name in names], dtype=np.int64)


def one_hot(contrasts: Sequence[Contrast], *, by_source: bool) -> FloatArray:
    """Z [n, k]: a column for each group of each axis, or of each axis and source; 1 for the texts that are of it."""
    keys = [(c.axis, c.group, c.source if by_source else "") for c in contrasts]
    place = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    return np.eye(len(place))[[place[key] for key in keys]]


_Maker = tuple[tuple[str, str, tuple[str, ...]], list[tuple[str, ...]]]


def _makers(lexicon: Lexicon) -> Iterator[_Maker]:
    """(axis, source, groups) of every set of words with its texts, one tuple of texts a template."""
    for entry in (*lexicon.swaps, *lexicon.names):
        present = [(group, word) for group, word in zip(lexicon.groups, entry.words, strict=True) if word]
        if len(present) > 1 and lexicon.templates:
            groups, words = zip(*present, strict=True)
            texts = [tuple(fill(template, word=word) for word in words) for template in lexicon.templates]
            yield (lexicon.axis, "name" if entry.tag == "name" else "word", groups), texts
    attributes = tuple(dict.fromkeys(word for entry in lexicon.associations for word in (*entry.first, *entry.second)))
    templates = [template for template in lexicon.pair_templates if attributes or "{attribute}" not in template]
    for number, people in enumerate(lexicon.persons() if templates else ()):
        texts = []
        for place, template in enumerate(templates):
            attribute = attributes[(number + place * 7) % len(attributes)] if attributes else ""
            texts.append(tuple(fill(template, person=person, attribute=attribute) for person in people))
        yield (lexicon.axis, "person", lexicon.groups), texts
