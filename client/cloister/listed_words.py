# SPDX-License-Identifier: Apache-2.0
"""The words of an association test (WEAT, SEAT), whether its lists hold words or sentences about them.

SEAT (May et al. 2019, arXiv:1903.10561) writes every word of a list into several sentences: `This is John.`, `John is
here.`  The word is what was chosen, so it is what counts, what is permuted and what is drawn; a file has the sentences
alone.  They are taken apart like this:

1. A list holds sentences where every entry has two words or more and ends in . ! or ?, or where every entry has three
   words or more.  A list with no such end holds words, as they stand.  One that mixes both is refused.
2. A sentence is cut into a word, which is one run of at most three tokens, and the frame around it.  Case,
   punctuation and articles count for nothing.  At least one token is left to the frame.
3. A frame counts that takes two different words in the test.  Of the cuts with such frames that one is taken whose
   word has a token of its list's own, one that stands in no sentence of the other lists; of several, the one that saves
   most, (words that the frame takes - 1) x (tokens of the frame); then the one with the shortest word; then the first.
4. Two words of a list are one, with the sentences of both, where they share a token of the list's own that not all its
   words have (`star and crescent`, `star and crescents`); where one of them, a token of the list's own, stands in a
   frame of the other; or where one is the plural of the other by its ending and no frame takes both (`salary`,
   `salaries`, but not `Ann`, `Anne`).  Too few words make an interval wide, too many make it wrong.
5. A list is refused in which a sentence has no cut, as one of more than 32 tokens has none, in which all sentences have
   the same word, or which has more than 2,000 sentences.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

_TOKEN = re.compile(r"\w+(?:(?:-|['’](?!s\b))\w+)*")  # the s of a genitive is a token
_END = re.compile(r"[.!?…。！？]['\"”’»)\]]*$")
# English and German, the languages of the built-in lists.
_ENGLISH, _GERMAN = ("a", "an", "the"), ("der", "die", "das", "den", "dem", "des", "ein", "eine")
_ARTICLES = frozenset((*_ENGLISH, *_GERMAN, "einen", "einem", "einer", "eines"))
_REPLACED = (("ies", "y"), ("ves", "f"), ("ves", "fe"), ("men", "man"))
_PLURALS = (*_REPLACED, *((ending, "") for ending in ("s", "es", "ren", "e", "n", "en", "er", "nen")))
"""Ending of the plural, and that of the singular in its place."""
_LONGEST_WORD = 3
_LONGEST_SENTENCE = 32  # tokens; with the next, keeps the work on a hostile row small
_MOST_SENTENCES = 2_000
_FEWEST_STEM = 3

_Tokens = tuple[str, ...]
_Frame = tuple[_Tokens, _Tokens]
_Taken = Mapping[_Frame, set[_Tokens]]


@dataclass(frozen=True)
class ListedWord:
    """A word of a list, with what the file says it in."""

    word: str
    """Of sentences: the shortest form, written as inside a sentence where it stands inside one."""
    sentences: tuple[str, ...] = ()
    """Empty where the list holds bare words."""
    forms: frozenset[str] = field(default_factory=frozenset)
    """How the sentences write it, casefolded, with and without what other lists have too; empty for a bare word."""

    def is_among(self, words: Iterable[str]) -> bool:
        """Whether one of `words` is this word: a bare word as it is written, that of sentences in any form and case."""
        return self.word in words if not self.forms else any(word.casefold() in self.forms for word in words)


class NoWordError(ValueError):
    """A list of sentences does not tell its words."""

    def __init__(self, place: int) -> None:
        super().__init__(f"list {place + 1} of the test has sentences whose word cannot be told")
        self.place = place  # of the list, from 0


def listed_words(lists: Sequence[Sequence[str]]) -> tuple[tuple[ListedWord, ...], ...]:
    """The words of each list, in the order in which they first stand.  Raises NoWordError."""
    sentences = {
        place: [_Sentence.of(entry) for entry in dict.fromkeys(entries)]
        for place, entries in enumerate(lists)
        if _holds_sentences(place, entries)
    }
    everywhere = Counter(
        token for entries in sentences.values() for token in {t for each in entries for t in each.tokens}
    )
    shared = {token for token, count in everywhere.items() if count > 1}
    frames: dict[_Frame, set[_Tokens]] = defaultdict(set)
    for each in (each for entries in sentences.values() for each in entries):
        for cut in each.cuts():
            frames[cut.frame].add(cut.word)
    return tuple(
        _words(place, sentences[place], frames, shared)
        if place in sentences
        else tuple(map(ListedWord, dict.fromkeys(entries)))
        for place, entries in enumerate(lists)
    )


def _holds_sentences(place: int, entries: Sequence[str]) -> bool:
    counts = [len(entry.split()) for entry in entries]
    ended = [count > 1 and _END.search(entry) is not None for count, entry in zip(counts, entries, strict=True)]
    if any(ended) and not all(ended):
        raise NoWordError(place)
    found = bool(entries) and (all(ended) or min(counts) > 2)
    if found and len(entries) > _MOST_SENTENCES:
        raise NoWordError(place)
    return found


# ---------------------------------------------------------------- cuts
@dataclass(frozen=True)
class _Cut:
    frame: _Frame
    word: _Tokens
    written: str
    start: int


@dataclass(frozen=True)
class _Sentence:
    text: str
    written: _Tokens
    """Tokens without articles."""

    @classmethod
    def of(cls, text: str) -> _Sentence:
        found = (token for token in _TOKEN.findall(text) if token.casefold() not in _ARTICLES)
        return cls(text, tuple(found))

    @property
    def tokens(self) -> tuple[str, ...]:
        return tuple(token.casefold() for token in self.written)

    def cuts(self) -> Iterator[_Cut]:
        tokens = self.tokens
        if len(tokens) > _LONGEST_SENTENCE:
            return
        for length in range(1, min(_LONGEST_WORD, len(tokens) - 1) + 1):
            for start in range(len(tokens) - length + 1):
                end = start + length
                written = " ".join(self.written[start:end])
                yield _Cut((tokens[:start], tokens[end:]), tokens[start:end], written, start)


def _best(sentence: _Sentence, frames: _Taken, shared: set[str]) -> _Cut | None:
    def rank(cut: _Cut) -> tuple[bool, int, int, int]:
        saved = (len(frames[cut.frame]) - 1) * (len(cut.frame[0]) + len(cut.frame[1]))
        return not shared.issuperset(cut.word), saved, -len(cut.word), -cut.start

    return max((cut for cut in sentence.cuts() if len(frames[cut.frame]) > 1), key=rank, default=None)


# ---------------------------------------------------------------- words
def _words(place: int, sentences: Sequence[_Sentence], frames: _Taken, shared: set[str]) -> tuple[ListedWord, ...]:
    cuts = [_best(each, frames, shared) for each in sentences]
    chosen = [cut for cut in cuts if cut is not None]
    units = _units(chosen, shared)
    if len(chosen) < len(cuts) or len(set(units.values())) < 2:
        raise NoWordError(place)
    found: dict[_Tokens, list[tuple[_Sentence, _Cut]]] = defaultdict(list)
    for each, cut in zip(sentences, chosen, strict=True):
        found[units[cut.word]].append((each, cut))
    return tuple(
        ListedWord(
            min((cut for _, cut in members), key=_plainness).written,
            tuple(each.text for each, _ in members),
            frozenset(" ".join(form) for _, cut in members for form in (cut.word, _own(cut.word, shared))),
        )
        for members in found.values()
    )


def _own(word: _Tokens, shared: set[str]) -> _Tokens:
    """Without the tokens at its ends that other lists have too (`hammers are`), if any is left."""
    places = [place for place, token in enumerate(word) if token not in shared]
    return word[places[0] : places[-1] + 1] if places else word


def _plainness(cut: _Cut) -> tuple[int, int, bool, str]:
    return len(cut.word), len(cut.written), cut.start == 0, cut.written


def _units(cuts: Sequence[_Cut], shared: set[str]) -> dict[_Tokens, _Tokens]:
    """Each word of a list to the first of those that are one with it."""
    taken: dict[_Tokens, set[_Frame]] = defaultdict(set)
    for cut in cuts:
        taken[cut.word].add(cut.frame)
    idle = shared.union(set.intersection(*map(set, taken)) if taken else ())
    heads = {word: word for word in taken}

    def head(word: _Tokens) -> _Tokens:
        while heads[word] != word:
            heads[word] = heads[heads[word]]  # halved, so that long chains stay cheap
            word = heads[word]
        return word

    first: dict[str, _Tokens] = {}
    for word in taken:
        for token in (token for token in word if token not in idle):
            heads[head(word)] = head(first.setdefault(token, word))
    for word, mine in taken.items():
        around = {(token,) for before, after in mine for token in (*before, *after) if token not in shared}
        for other in (other for other in around if other in taken):
            heads[head(word)] = head(other)
        for single in (single for single in _singulars(word) if single in taken):
            if mine.isdisjoint(taken[single]):
                heads[head(word)] = head(single)
    return {word: head(word) for word in taken}


def _singulars(word: _Tokens) -> Iterator[_Tokens]:
    *before, last = word
    for plural, single in _PLURALS:
        if last.endswith(plural) and len(last) >= len(plural) + _FEWEST_STEM - len(single):
            yield *before, last.removesuffix(plural) + single
