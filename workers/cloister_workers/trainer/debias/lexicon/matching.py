# SPDX-License-Identifier: Apache-2.0
"""Finds the words of a lexicon in a text: whole words, the longest first, in the case in which they are written."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from cloister_workers.trainer.debias.lexicon.terms import Lexicon, SwapSet

_TOKEN = re.compile(r"[^\W_]+(?:_+[^\W_]+)*|[^\w\s]|_")
_OPENS_SENTENCE = frozenset(".!?:;…\"“”„‘'(*-–—•")


@dataclass(frozen=True, slots=True)
class Token:
    """A run of letters and digits (and underscores between them), or one other sign; white space is none."""

    text: str
    start: int
    end: int
    lower: str

    @property
    def is_word(self) -> bool:
        return self.text[0].isalnum()


@dataclass(frozen=True)
class Sense:
    """One way to read a hit: the word of one group of one set."""

    entry: SwapSet
    group: int
    word: str
    """As listed."""
    held_out: bool


@dataclass(frozen=True)
class Hit:
    """Tokens [first, last) that are a term, with every way to read them; at least one."""

    first: int
    last: int
    senses: tuple[Sense, ...]


@dataclass
class _Node:
    """A place in the tree of lower-case tokens."""

    next: dict[str, _Node] = field(default_factory=dict)
    senses: list[Sense] = field(default_factory=list)
    ends: bool = False


class Finder:
    """Finds the terms of one lexicon."""

    def __init__(self, lexicon: Lexicon) -> None:
        self._ambiguous = lexicon.ambiguous
        self._terms = _Node()
        self._excluded = _Node()
        for entries, held_out in (((*lexicon.swaps, *lexicon.names), False), (lexicon.held_out, True)):
            for entry in entries:
                for group, word in enumerate(entry.words):
                    if word:
                        self._leaf(self._terms, word).senses.append(Sense(entry, group, word, held_out))
        for phrase in lexicon.excluded:
            self._leaf(self._excluded, phrase)

    def find(self, tokens: Sequence[Token]) -> Iterator[Hit]:
        """Hits from left to right that do not overlap."""
        at = 0
        while at < len(tokens):
            hit = self._longest(tokens, at) if tokens[at].lower in self._terms.next else None
            if hit:
                yield hit
            at = hit.last if hit else at + 1

    def excludes(self, tokens: Sequence[Token]) -> bool:
        """Whether the text has a word or phrase in whose company nothing is swapped."""
        first = self._excluded.next
        return any(
            node.ends
            for at, token in enumerate(tokens)
            if token.lower in first
            for node, _ in _walk(self._excluded, tokens, at)
        )

    def _longest(self, tokens: Sequence[Token], at: int) -> Hit | None:
        for node, last in reversed(list(_walk(self._terms, tokens, at))):
            senses = tuple(sense for sense in node.senses if self._is_term(tokens, at, last, sense))
            if senses:
                return Hit(at, last, senses)
        return None

    def _is_term(self, tokens: Sequence[Token], first: int, last: int, sense: Sense) -> bool:
        surface = _surface(tokens, first, last)
        style = _style(surface, sense.word)
        if style is None:
            return False
        named = sense.entry.tag == "name"
        if named and ((surface != sense.word and style is not str.upper) or _in_compound(tokens, first, last)):
            return False
        if surface.lower() in self._ambiguous:
            return surface == sense.word != surface.lower() and not (named and opens_sentence(tokens, first))
        return True

    @staticmethod
    def _leaf(root: _Node, phrase: str) -> _Node:
        node = root
        for token in tokenise(phrase):
            node = node.next.setdefault(token.lower, _Node())
        node.ends = True
        return node


def tokenise(text: str) -> list[Token]:
    """Words and signs of `text`, in order."""
    return [Token(found.group(), found.start(), found.end(), found.group().lower()) for found in _TOKEN.finditer(text)]


def opens_sentence(tokens: Sequence[Token], at: int) -> bool:
    """Whether the token at `at` is the first of a sentence, a title or a quotation."""
    return at == 0 or tokens[at - 1].text in _OPENS_SENTENCE


def restyled(surface: str, word: str, other: str) -> str:
    """`other` in the case of `surface`, which is the listed `word` as the text writes it; gaps are kept."""
    style = _style(" ".join(surface.split()), word) or str
    gaps = re.findall(r"\s+", surface)
    new = style(other)
    if any(gap != " " for gap in gaps) and new.count(" ") == len(gaps):
        pieces = new.split(" ")
        return "".join(piece + gap for piece, gap in zip(pieces, (*gaps, ""), strict=True))
    return new


def _walk(root: _Node, tokens: Sequence[Token], at: int) -> Iterable[tuple[_Node, int]]:
    """Places of the tree that end a phrase, and the position behind it, for phrases that begin at `at`."""
    node = root
    for position in range(at, len(tokens)):
        following = node.next.get(tokens[position].lower)
        if following is None:
            return
        node = following
        if node.ends:
            yield node, position + 1


def _surface(tokens: Sequence[Token], first: int, last: int) -> str:
    """Tokens [first, last) with one space where there is white space."""
    parts = [tokens[first].text]
    for before, token in zip(tokens[first:last], tokens[first + 1 : last], strict=False):
        parts.append(token.text if token.start == before.end else f" {token.text}")
    return "".join(parts)


def _in_compound(tokens: Sequence[Token], first: int, last: int) -> bool:
    before, after = tokens[first - 1 : first], tokens[last : last + 1]
    joined_before = bool(before) and before[0].text in "-&" and before[0].end == tokens[first].start
    joined_after = bool(after) and after[0].text in "-&" and after[0].start == tokens[last - 1].end
    return joined_before or joined_after


def _capitalised(word: str) -> str:
    return word[:1].upper() + word[1:]


def _titled(word: str) -> str:
    return " ".join(map(_capitalised, word.split(" ")))


_STYLES: tuple[Callable[[str], str], ...] = (str, _capitalised, _titled, str.upper, str.lower)


def _style(surface: str, word: str) -> Callable[[str], str] | None:
    """How `surface` writes the listed `word`: as listed, Capital first, Every Word, UPPER or lower; else None."""
    return next((style for style in _STYLES if style(word) == surface), None)
