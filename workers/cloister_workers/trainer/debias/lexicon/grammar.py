# SPDX-License-Identifier: Apache-2.0
"""What a language asks for when a word is swapped."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from functools import cache
from typing import Protocol

from cloister_workers.trainer.debias.lexicon.matching import Token
from cloister_workers.trainer.debias.lexicon.terms import SwapSet


class Reading(Enum):
    """What a word that is on the list means where it stands."""

    TERM = "the term of the list"
    UNCLEAR = "the term, perhaps, or one that cannot be swapped without breaking the sentence"
    OTHER = "another word that looks the same"


class Grammar(Protocol):
    """Rules of one language. `tokens` are those of the whole text; positions count them from 0."""

    def reading(self, tokens: Sequence[Token], first: int, last: int, entry: SwapSet) -> Reading:
        """How tokens [first, last) are read, which are a word of `entry`."""
        ...

    def use(self, tokens: Sequence[Token], at: int) -> str:
        """Which `SwapSet.use` the pronoun at `at` has, where its form leaves several; "" where it cannot be told."""
        ...

    def article(self, article: str, old: str, new: str) -> str:
        """The word before a swapped term, changed if it is an article that went with `old` and not with `new`."""
        ...


class Plain:
    """A language without rules here: words are swapped as they stand."""

    def reading(self, tokens: Sequence[Token], first: int, last: int, entry: SwapSet) -> Reading:
        return Reading.TERM

    def use(self, tokens: Sequence[Token], at: int) -> str:
        return ""

    def article(self, article: str, old: str, new: str) -> str:
        return article


@cache
def grammar_of(language: str) -> Grammar:
    """The rules of a language by its code, `Plain` where there are none."""
    from cloister_workers.trainer.debias.lexicon.english import English
    from cloister_workers.trainer.debias.lexicon.german import German

    known: dict[str, Grammar] = {"en": English(), "de": German()}
    return known.get(language, Plain())
