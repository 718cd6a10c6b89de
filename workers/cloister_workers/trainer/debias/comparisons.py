# SPDX-License-Identifier: Apache-2.0
"""Sentences to compare, from a part's word lists: a pair template, persons of the first group and of another, and an
attribute that prejudice ties to each.

Which of all combinations are taken, follows from the seed alone; every template, person and attribute comes about as
often as any other.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from cloister_workers.trainer.debias.lexicon import Lexicon, fill
from cloister_workers.trainer.order import data_order

_PERSON, _ATTRIBUTE = "{person}", "{attribute}"
_FEW = 4  # times as many as wanted; beyond that drawing one by one costs less than an order of all


@dataclass(frozen=True)
class Comparison:
    """Two persons and two attributes for one template; prejudice joins the first ones, and the second ones."""

    template: str
    persons: tuple[str, str]
    attributes: tuple[str, str]

    def sentence(self, person: int, attribute: int) -> str:
        return fill(self.template, person=self.persons[person], attribute=self.attributes[attribute])

    def chain(self) -> tuple[str, str, str, str]:
        """Stereotype and its counterpart of the other group, for the first attribute and for the second."""
        return self.sentence(0, 0), self.sentence(1, 0), self.sentence(1, 1), self.sentence(0, 1)

    def choices(self) -> tuple[tuple[str, str], tuple[str, str]]:
        """Two prompts that end where the later slot begins, and the two ways to go on, the same for both."""
        persons_first = self.template.index(_PERSON) < self.template.index(_ATTRIBUTE)
        later = _ATTRIBUTE if persons_first else _PERSON
        early, late = (self.persons, self.attributes) if persons_first else (self.attributes, self.persons)
        head, tail = self.template.split(later, 1)
        space = head[len(head.rstrip()) :]
        key = "person" if persons_first else "attribute"
        prompts = [fill(head.rstrip(), **{key: value}) for value in early]
        return (prompts[0], prompts[1]), (space + late[0] + tail, space + late[1] + tail)


def comparisons(lexicon: Lexicon, count: int, seed: int) -> list[Comparison]:
    """At most `count` of all comparisons of the lexicon; fewer where it has fewer, none where it lacks a list."""
    templates = [text for text in lexicon.pair_templates if text.count(_PERSON) == text.count(_ATTRIBUTE) == 1]
    persons = [pair for two in lexicon.contrasts() for pair in lexicon.pairs(two)]
    attributes = [
        (first, association.second[(place + seed) % len(association.second)])
        for association in lexicon.associations
        if association.second
        for place, first in enumerate(association.first)
    ]
    found: dict[Comparison, None] = {}
    for number in _drawn(len(templates) * len(persons) * len(attributes), count, seed):
        rest, template = divmod(number, len(templates))
        words, person = divmod(rest, len(persons))
        found[Comparison(templates[template], persons[person], attributes[words])] = None
    return list(found)


def _drawn(total: int, count: int, seed: int) -> list[int]:
    """At most `count` different numbers below `total`, in an order that the seed draws."""
    if total <= _FEW * count:
        return data_order(seed, 0, total)[:count]
    found: dict[int, None] = {}
    turn = 0
    while len(found) < count:
        digest = hashlib.sha256(f"cloister/comparisons/v1\0{seed}\0{turn}".encode()).digest()
        found[int.from_bytes(digest[:8]) % total] = None
        turn += 1
    return list(found)
