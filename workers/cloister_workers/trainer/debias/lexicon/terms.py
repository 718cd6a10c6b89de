# SPDX-License-Identifier: Apache-2.0
"""What a word list of an axis is made of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

MIN_TERMS = 25
"""Fewest words of a list on which anything may be fitted or measured."""


@dataclass(frozen=True)
class SwapSet:
    """Words that stand for each other, one a group, in the order of `Lexicon.groups`; "" where a group has none."""

    words: tuple[str, ...]
    tag: str = "noun"
    """`function` (pronouns, titles: in every part), `noun`, `adjective`, or `name`."""
    use: str = ""
    """For pronouns that look alike in one group: `dependent` (his/her book), `object` (him/her), `independent`
    (his/hers). Empty for all other words.
    """
    person: str = ""
    """How a sentence speaks of one such person, `{}` for the word: `my {}`, `the {} student`, `{}`. Empty where the
    words name no single person.
    """

    def persons(self) -> tuple[str, ...]:
        """The words as phrases for the slot {person}, "" where a group has none; empty where no person is named."""
        return tuple(word and self.person.format(word) for word in self.words) if self.person else ()


@dataclass(frozen=True)
class Association:
    """Two lists of attributes that prejudice ties to two groups: the material of WEAT and SEAT.

    Attributes are nouns without an article, in the form in which they follow a preposition ("talks about wages").
    """

    name: str
    """For example career_family."""
    first: tuple[str, ...]
    """What prejudice ties to the first group of the axis."""
    second: tuple[str, ...]
    """What prejudice ties to the others."""


UNTOLD = "pairs of two groups that no association list tells of; each is measured against the first group alone"


@dataclass(frozen=True)
class TwoGroups:
    """Two groups that are compared, by their places among the groups of the axis."""

    first: int
    second: int
    name: str
    """Empty where the axis has no further groups."""

    def of(self, association: str) -> str:
        """The name of an association's test on these two groups."""
        return f"{association}: {self.name}" if self.name else association


@dataclass(frozen=True)
class Lexicon:
    """One axis in one language."""

    axis: str
    language: str
    groups: tuple[str, ...]
    """Names of the groups, at least two."""
    swaps: tuple[SwapSet, ...]
    """Nouns, adjectives and function words."""
    names: tuple[SwapSet, ...] = ()
    """Given or family names, paired over the groups."""
    associations: tuple[Association, ...] = ()
    templates: tuple[str, ...] = ()
    """Sentences with {word} for any word, whatever its part of speech (bleached: they say nothing else)."""
    pair_templates: tuple[str, ...] = ()
    """Sentences with {person} for one of `persons()` and {attribute} for an attribute of an association."""
    neutral: tuple[str, ...] = ()
    """Sentences that no axis touches, for utility and retention."""
    excluded: frozenset[str] = field(default_factory=frozenset)
    """Words and phrases in whose company nothing is swapped: medical facts, titles of works."""
    ambiguous: frozenset[str] = field(default_factory=frozenset)
    """Lower-case forms that are common words too (mark, rose, polish): terms only with the capital of the list, and
    names among them only inside a sentence.
    """
    held_out: tuple[SwapSet, ...] = ()
    """In a part's share: words and names that belong to other parts. A text that needs one of them to be swapped is
    not swapped at all.
    """

    def terms(self) -> Mapping[str, tuple[str, ...]]:
        """Group to its content words (nouns, adjectives, names), without function words."""
        found: dict[str, list[str]] = {group: [] for group in self.groups}
        for entry in self.content():
            for group, word in zip(self.groups, entry.words, strict=True):
                if word:
                    found[group].append(word)
        return {group: tuple(dict.fromkeys(words)) for group, words in found.items()}

    def content(self) -> Iterator[SwapSet]:
        """Every set but those of function words."""
        return (entry for entry in (*self.swaps, *self.names) if entry.tag != "function")

    def contrasts(self) -> tuple[TwoGroups, ...]:
        """The pairs of groups that the associations tell of: the first group with each of the others."""
        head, *others = self.groups
        named = len(others) > 1
        return tuple(
            TwoGroups(0, place, f"{head} and {group}" if named else "") for place, group in enumerate(others, start=1)
        )

    def untold(self) -> Mapping[str, int]:
        """Pairs of groups that no association tells of: why, and how many; for `Items.left_out`."""
        others = len(self.groups) - 1
        return {UNTOLD: others * (others - 1) // 2} if others > 1 else {}

    def pairs(self, two: TwoGroups) -> tuple[tuple[str, str], ...]:
        """Phrases for {person}, one for each of the two groups, of sets that name a person in both."""
        phrases = (entry.persons() for entry in self.content())
        both = ((entry[two.first], entry[two.second]) for entry in phrases if entry)
        return tuple(pair for pair in both if all(pair))

    def persons(self) -> tuple[tuple[str, ...], ...]:
        """Phrases for {person}, one a group: those sets alone that name persons in all groups."""
        phrases = (entry.persons() for entry in self.content())
        return tuple(entry for entry in phrases if entry and all(entry))


@dataclass(frozen=True)
class Short:
    """A word list with too few words."""

    axis: str
    list: str
    """For example `terms of group 2` or `career_family, first list`; positions, never the user's own words."""
    count: int
    needed: int = MIN_TERMS


def check_sizes(lexicon: Lexicon, needed: int = MIN_TERMS) -> tuple[Short, ...]:
    """Word lists of `lexicon` under `needed` words: the terms of each group and both lists of each association.

    Give it a whole lexicon, before it is divided. Nothing short means an empty answer.
    """
    lists = [(f"terms of group {i}", words) for i, words in enumerate(lexicon.terms().values(), start=1)]
    for i, association in enumerate(lexicon.associations, start=1):
        lists += [
            (f"association {i}, first list", association.first),
            (f"association {i}, second list", association.second),
        ]
    return tuple(
        Short(lexicon.axis, name, len(set(words)), needed) for name, words in lists if len(set(words)) < needed
    )


def fill(template: str, **slots: str) -> str:
    """`template` with its slots filled; a slot that opens a sentence gets a capital letter."""
    text = template
    for name, value in slots.items():
        text = text.replace(f"{{{name}}}", value)
    return text[:1].upper() + text[1:]
