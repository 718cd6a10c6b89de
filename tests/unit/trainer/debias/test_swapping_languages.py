# SPDX-License-Identifier: Apache-2.0
"""Swapping in German, where little can be swapped word by word, and in languages without rules."""

from __future__ import annotations

from functools import cache

import pytest

from cloister_workers.trainer.debias.lexicon import Lexicon, SwapSet, load_lexicon
from cloister_workers.trainer.debias.lexicon.grammar import Plain, grammar_of
from cloister_workers.trainer.debias.swapping import NotSwapped, Swapped, Swapper, Why


@cache
def german() -> Swapper:
    return Swapper({"gender": load_lexicon("gender", "de")})


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Er ist Lehrer.", "Sie ist Lehrerin."),
        ("Anna arbeitet als Ärztin bei Peter.", "Peter arbeitet als Arzt bei Anna."),
        ("Peters Hund mag Annas Katze.", "Annas Hund mag Peters Katze."),
        ("Gestern kam Oma. Sie war müde.", "Gestern kam Opa. Er war müde."),
        ("Haben Sie Jonas gesehen?", "Haben Sie Johanna gesehen?"),
        ("Sie sind da. Nina lacht.", "Sie sind da. Niklas lacht."),
    ],
)
def test_german_swaps_what_agrees_with_nothing(text, wanted):
    """Names, bare occupations and the subject at the head of a sentence change, there and back."""
    found = german().swap(text, "gender")
    assert isinstance(found, Swapped)
    assert found.text == wanted
    back = german().swap(found.text, "gender")
    assert isinstance(back, Swapped)
    assert back.text == text


@pytest.mark.parametrize(
    "text",
    [
        "Die Ärztin kommt.",
        "Der nette Lehrer kommt.",
        "Die kleine Anna lacht.",
        "Der Peter lacht.",
        "Anna, die gern liest, lacht.",
        "Peter liebt seine Arbeit.",
        "Wir sahen sie gestern.",
        "Anna hilft ihm.",
        "Lehrer sind da.",
    ],
)
def test_german_leaves_alone_what_agrees(text):
    """Where an article, an adjective, a relative clause or another pronoun would have to change, nothing does."""
    assert german().swap(text, "gender") == NotSwapped(Why.AMBIGUOUS)


@pytest.mark.parametrize("text", ["Sie sind da.", "Kommen Sie herein!", "Das Haus ist alt.", "Schwanger?"])
def test_german_politeness_is_no_term(text):
    """The polite address and the plural have no gender."""
    assert german().swap(text, "gender") == NotSwapped(Why.NO_TERM)


def test_german_excludes_medical_facts():
    """Facts of the body stop a swap in German too."""
    assert german().swap("Anna ist schwanger.", "gender") == NotSwapped(Why.EXCLUDED)


def test_a_language_without_rules_swaps_as_it_stands():
    """Users may bring lists in any language; words are then swapped without looking around."""
    swapper = Swapper({"genre": Lexicon("genre", "fr", ("h", "f"), (SwapSet(("oncle", "tante")),))})
    found = swapper.swap("Mon Oncle et ma tante", "genre")
    assert isinstance(found, Swapped)
    assert found.text == "Mon Tante et ma oncle"
    assert isinstance(grammar_of("fr"), Plain)


def test_look_alikes_without_a_rule_are_ambiguous():
    """Where a list gives a pronoun several uses and the language has no rule for them, nothing is swapped."""
    entries = (SwapSet(("lui", "elle"), "function", "object"), SwapSet(("lui", "lei"), "function", "dependent"))
    swapper = Swapper({"genre": Lexicon("genre", "xx", ("h", "f"), entries)})
    assert swapper.swap("per lui", "genre") == NotSwapped(Why.AMBIGUOUS)
