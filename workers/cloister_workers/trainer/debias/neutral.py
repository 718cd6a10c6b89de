# SPDX-License-Identifier: Apache-2.0
"""Texts of a part that no axis touches: background for utility, retention and retrieval."""

from __future__ import annotations

import re

from cloister_workers.trainer.debias.lexicon import Lexicon
from cloister_workers.trainer.debias.material import Part
from cloister_workers.trainer.debias.shapes import Text

_WORD = re.compile(r"\w+")


def neutral_texts(part: Part) -> tuple[str, ...]:
    """The users' plain texts and the lexicons' neutral sentences, each once, in that order; without those that hold a
    word of any axis, function words and words of other parts included.
    """
    touching = [_plain(word) for lexicon in part.lexicons.values() for word in _words(lexicon)]
    words = {entry for entry in touching if " " not in entry}
    phrases = [f" {entry} " for entry in touching if " " in entry]
    own = (row.text for row in part.rows.of(Text))
    lists = (text for lexicon in part.lexicons.values() for text in lexicon.neutral)
    return tuple(text for text in dict.fromkeys((*own, *lists)) if not _touched(_plain(text), words, phrases))


def _words(lexicon: Lexicon) -> list[str]:
    entries = (*lexicon.swaps, *lexicon.names, *lexicon.held_out)
    return [word for entry in entries for word in entry.words if word and word.casefold() not in lexicon.ambiguous]


def _plain(text: str) -> str:
    return " ".join(_WORD.findall(text.casefold()))


def _touched(text: str, words: set[str], phrases: list[str]) -> bool:
    return not words.isdisjoint(text.split()) or any(phrase in f" {text} " for phrase in phrases)
