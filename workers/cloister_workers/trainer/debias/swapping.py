# SPDX-License-Identifier: Apache-2.0
"""Says a text of another group: every term of an axis goes to its counterpart, and nothing else changes.

Swapping goes both ways at once, so "he thanked her" becomes "she thanked him". On an axis of more than two groups two
of them change places: the group of the text's first term and another, which is drawn from the seed and the text.
Whole words alone are swapped, the longest term first; case, punctuation and spaces stay, and in English `a` and `an`
follow their noun. What cannot be swapped well is not swapped, and the answer says why.

On an axis of two groups `swap(swap(text)) == text`, except where a word has several counterparts (mum and mom both
go to dad, Mrs and Miss to Mr) and where the rule for `her` and `his` reads a text and its swap differently.

Not seen: names that no list has, so that "Xanthe met her uncle" keeps its name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from cloister_workers.trainer.debias.lexicon.grammar import Grammar, Reading, grammar_of
from cloister_workers.trainer.debias.lexicon.matching import Finder, Hit, Sense, Token, restyled, tokenise
from cloister_workers.trainer.debias.lexicon.terms import Lexicon


class Why(StrEnum):
    """Why a text was not swapped."""

    NO_TERM = "no term of the axis"
    SEVERAL_AXES = "terms of another axis too"
    EXCLUDED = "a medical fact or a title of a work"
    HELD_OUT = "a term that belongs to another part"
    AMBIGUOUS = "a word whose counterpart cannot be told here"
    NO_COUNTERPART = "a term that the other group has no word for"
    SAME_GROUP = "speaks of that group already"


@dataclass(frozen=True)
class Swapped:
    """A text said of another group."""

    text: str
    axis: str
    replaced: tuple[str, ...]
    """Terms of the source that were replaced, as the lexicon lists them, in the order of the text."""
    group_from: str
    """Of the first term; on the way back it is `group_to`."""
    group_to: str


@dataclass(frozen=True)
class NotSwapped:
    """A text that was left alone."""

    reason: Why


@dataclass(frozen=True)
class Term:
    """A term of an axis in a text."""

    word: str
    """As the lexicon lists it."""
    group: str
    tag: str
    start: int
    end: int
    """Characters [start, end) of the text."""
    held_out: bool
    """Whether it belongs to another part than the lexicon that was asked."""


@dataclass(frozen=True)
class _Found:
    """A hit with the senses that the sentence leaves to it; none where they cannot be told apart."""

    hit: Hit
    senses: tuple[Sense, ...]


class Swapper:
    """Swaps texts on the axes of `lexicons`.

    Give it the lexicons of a part and it swaps with that part's words alone: a text with a content word or name that
    was held out is refused (`Why.HELD_OUT`), so fit and test never share a swapped word.
    """

    def __init__(self, lexicons: Mapping[str, Lexicon]) -> None:
        self._lexicons = dict(lexicons)
        self._finders = {axis: Finder(lexicon) for axis, lexicon in self._lexicons.items()}

    @property
    def axes(self) -> tuple[str, ...]:
        """Axes in the order in which they were given."""
        return tuple(self._lexicons)

    def swap(
        self, text: str, axis: str, *, target: int | None = None, seed: int = 0, both_axes: bool = False
    ) -> Swapped | NotSwapped:
        """`text` with the groups of `axis` changed, or why not.

        `target` is the position in `groups` of the group to go to; without it a binary axis goes to the other group
        and a larger one to a group drawn from `seed` and `text` among those that have all the words. Texts with
        terms of another axis of this swapper are left alone unless `both_axes`. Raises KeyError for an axis that
        this swapper does not have.
        """
        tokens = tokenise(text)
        found = self._find(tokens, axis)
        if reason := self._refusal(tokens, found, axis, both_axes=both_axes):
            return NotSwapped(reason)
        source = found[0].senses[0].group
        chosen = self._target(text, axis, found, source, target, seed)
        if isinstance(chosen, Why):
            return NotSwapped(chosen)
        exchange = {source: chosen, chosen: source}
        moves = [(entry.hit, sense, exchange[sense.group]) for entry in found if (sense := _moving(entry, exchange))]
        groups = self._lexicons[axis].groups
        grammar = grammar_of(self._lexicons[axis].language)
        return Swapped(
            text=_rewritten(text, tokens, moves, grammar),
            axis=axis,
            replaced=tuple(sense.word for _, sense, _ in moves),
            group_from=groups[source],
            group_to=groups[chosen],
        )

    def groups_of(self, text: str, axis: str) -> frozenset[str]:
        """Groups of which `text` speaks, held-out words included."""
        return frozenset(term.group for term in self.terms_in(text, axis))

    def terms_in(self, text: str, axis: str) -> tuple[Term, ...]:
        """Terms of `axis` in the order of the text, held-out words included; words that cannot be told are left out."""
        tokens = tokenise(text)
        groups = self._lexicons[axis].groups
        return tuple(
            Term(
                sense.word,
                groups[sense.group],
                sense.entry.tag,
                tokens[found.hit.first].start,
                tokens[found.hit.last - 1].end,
                sense.held_out,
            )
            for found in self._find(tokens, axis)
            for sense in found.senses[:1]
        )

    def _find(self, tokens: Sequence[Token], axis: str) -> list[_Found]:
        grammar = grammar_of(self._lexicons[axis].language)
        found = []
        for hit in self._finders[axis].find(tokens):
            reading = grammar.reading(tokens, hit.first, hit.last, hit.senses[0].entry)
            if reading is Reading.OTHER:
                continue
            found.append(_Found(hit, _told_apart(hit, tokens, grammar) if reading is Reading.TERM else ()))
        return found

    def _refusal(self, tokens: Sequence[Token], found: Sequence[_Found], axis: str, *, both_axes: bool) -> Why | None:
        if not found:
            return Why.NO_TERM
        if self._finders[axis].excludes(tokens):
            return Why.EXCLUDED
        if not both_axes and any(self._find(tokens, other) for other in self._lexicons if other != axis):
            return Why.SEVERAL_AXES
        if any(sense.held_out for entry in found for sense in entry.hit.senses):
            return Why.HELD_OUT
        return None if all(entry.senses for entry in found) else Why.AMBIGUOUS

    def _target(
        self, text: str, axis: str, found: Sequence[_Found], source: int, target: int | None, seed: int
    ) -> int | Why:
        if target == source:
            return Why.SAME_GROUP
        groups = range(len(self._lexicons[axis].groups))
        wanted = [group for group in groups if group != source] if target is None else [target]
        possible = [group for group in wanted if all(_can_move(entry, source, group) for entry in found)]
        return _draw(possible, text, seed) if possible else Why.NO_COUNTERPART


def _told_apart(hit: Hit, tokens: Sequence[Token], grammar: Grammar) -> tuple[Sense, ...]:
    """The senses of a hit: all of them, or for pronouns that look alike those of the use at hand."""
    if len(hit.senses) == 1 or not any(sense.entry.use for sense in hit.senses):
        return hit.senses
    use = grammar.use(tokens, hit.first)
    return tuple(sense for sense in hit.senses if sense.entry.use == use)


def _can_move(found: _Found, source: int, target: int) -> bool:
    exchange = {source: target, target: source}
    moving = [sense for sense in found.senses if sense.group in exchange]
    return not moving or any(sense.entry.words[exchange[sense.group]] for sense in moving)


def _moving(found: _Found, exchange: Mapping[int, int]) -> Sense | None:
    """The first sense that has a word in the other group; None for a term of a third group, which stays."""
    senses = (sense for sense in found.senses if sense.group in exchange)
    return next((sense for sense in senses if sense.entry.words[exchange[sense.group]]), None)


def _draw(groups: Sequence[int], text: str, seed: int) -> int:
    if len(groups) == 1:
        return groups[0]
    digest = hashlib.sha256(f"cloister/swap/v1\0{seed}\0{text}".encode()).digest()
    return groups[int.from_bytes(digest[:8], "big") % len(groups)]


def _rewritten(text: str, tokens: Sequence[Token], moves: Sequence[tuple[Hit, Sense, int]], grammar: Grammar) -> str:
    parts: list[str] = []
    done = 0
    for hit, sense, group in moves:
        start, end = tokens[hit.first].start, tokens[hit.last - 1].end
        new = restyled(text[start:end], sense.word, sense.entry.words[group])
        article = tokens[hit.first - 1] if hit.first else None
        if article and article.start >= done and article.end < start:
            parts += [text[done : article.start], grammar.article(article.text, text[start:end], new)]
            done = article.end
        parts += [text[done:start], new]
        done = end
    return "".join((*parts, text[done:]))
