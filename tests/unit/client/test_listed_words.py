# SPDX-License-Identifier: Apache-2.0
"""Sentences of an association test are taken apart into their words; what cannot be is refused."""

from __future__ import annotations

import random

import pytest

from cloister.listed_words import ListedWord, NoWordError, listed_words

FRAMES = ("This is {}.", "There is {}.", "Here is {}.", "{} is here.", "{} is there.", "{}'s name is known.")
OTTOS = ("Otto", "Emil", "Hugo", "Karl", "Anton")
IDAS = ("Ida", "Ella", "Rosa", "Klara", "Ann", "Anne")
SINGULAR = ("This is {a} {}.", "Here is {a} {}.", "The {} is there.", "{A} {} is a thing.")
PLURAL = ("These are {}.", "They are {}.", "The {} are there.", "{} are things.")
TOOLS = {"hammer": "hammers", "axe": "axes", "factory": "factories", "foreman": "foremen", "wrench": "wrenches"}
MEALS = {"child": "children", "oven": "ovens", "loaf": "loaves", "knife and fork": "knife and forks", "pie": "pies"}


def framed(words, frames=FRAMES) -> list[str]:
    return [frame.format(word) for word in words for frame in frames]


def things(words) -> list[str]:
    """Sentences with an article, and those of the plural."""
    found = []
    for word, many in words.items():
        a = "an" if word[0] in "aeiou" else "a"
        found += [frame.format(word, a=a, A=a.capitalize()) for frame in SINGULAR]
        found += [frame.format(many) for frame in PLURAL]
    return [text[0].upper() + text[1:] for text in found]


def told(lists) -> list[list[tuple[str, int]]]:
    return [[(entry.word, len(entry.sentences)) for entry in words] for words in listed_words(lists)]


TEST = (framed(OTTOS), framed(IDAS), things(TOOLS), things(MEALS))


def test_sentences_of_a_word_are_one():
    """A word has all its sentences, wherever it stands in them, with either article and in singular and plural."""
    assert [
        [(name, 6) for name in OTTOS],
        [(name, 6) for name in IDAS],
        [(word, 8) for word in TOOLS],
        [(word, 8) for word in MEALS],
    ] == told(TEST)
    otto = listed_words(TEST)[0][0]
    assert tuple(framed(["Otto"])) == otto.sentences


def test_the_order_of_sentences_does_not_matter():
    """Shuffled lists, each sentence twice, give the same words with the same sentences."""
    draw = random.Random(4)
    shuffled = listed_words([draw.sample([*entries, *entries], 2 * len(entries)) for entries in TEST])

    def plain(lists):
        return [{(entry.word, frozenset(entry.sentences), entry.forms) for entry in words} for words in lists]

    assert plain(listed_words(TEST)) == plain(shuffled)


def test_more_frames_than_words():
    """What stands in the sentences of several lists belongs to a frame, even where it varies more than the words do."""
    heads = ("Here", "There", "This", "That", "Now", "Then", "Today", "Yonder", "Always", "Still", "Again", "Soon")
    frames = [f"{head} is {{}}." for head in heads]
    [first, second] = told([framed(OTTOS, frames), framed(IDAS[:5], frames)])
    assert [(name, 12) for name in OTTOS] == first
    assert [(name, 12) for name in IDAS[:5]] == second


def test_a_frame_of_one_sentence():
    """A sentence alone in its frame belongs to the word that it has in common with others."""
    [first, second] = told([[*framed(OTTOS), "Her own name is Otto."], framed(IDAS)])
    assert [("Otto", 7), *((name, 6) for name in OTTOS[1:])] == first
    assert [(name, 6) for name in IDAS] == second


def test_sentences_need_no_full_stop():
    """Entries that all have three words are sentences, and one frame is enough."""
    [first, second] = told([[f"{name} is an engineer" for name in OTTOS], [f"{name} is an engineer" for name in IDAS]])
    assert [(name, 1) for name in OTTOS] == first
    assert [(name, 1) for name in IDAS] == second


def test_in_doubt_there_are_fewer_words():
    """Words that share a token of their list alone are one: frames of one list cannot be told from its words."""
    verbs = framed(["leak", "burn"], ["This will {}.", "This can {}.", "That will {}.", "That can {}."])
    [*_, last] = told([framed(OTTOS), framed(IDAS), things(TOOLS), [*things(MEALS), *verbs]])
    assert [*((word, 8) for word in MEALS), 8] == [*last[:5], last[5][1]]
    assert 6 == len(last)


def test_words_stay_as_they_are():
    """A list of words or phrases has each of them once, with no sentences, beside lists of sentences too."""
    phrases = ["knife and fork", "pie", "pie", "hot soup"]
    expected = tuple(ListedWord(word) for word in ("knife and fork", "pie", "hot soup"))
    assert (expected, expected) == listed_words([phrases, phrases])
    assert expected == listed_words([framed(OTTOS), framed(IDAS), phrases, phrases])[2]


FREE = [
    "My uncle repairs old clocks.",
    "She painted two houses.",
    "Nobody called before noon.",
    "A letter came from Rome.",
]


@pytest.mark.parametrize(
    "entries",
    [
        FREE,
        [*framed(IDAS), FREE[0]],
        [*framed(IDAS), "Maria"],
        framed(["Ida"]),
        ["This is " + "very " * 40 + f"{name}." for name in IDAS],
        [f"This is n{number}." for number in range(2_001)],
    ],
    ids=["free", "one free", "mixed", "one word", "too long", "too many"],
)
def test_sentences_that_do_not_tell_their_words(entries):
    """Sentences without a common frame, beside words, of one word only, too long or too many: the list is refused."""
    with pytest.raises(NoWordError) as refused:
        listed_words([framed(OTTOS), entries, ["soup"], ["bread"]])
    assert 1 == refused.value.place


def test_a_word_is_found_among_others():
    """A word of sentences is known in each of its forms and in any case, a bare word as it is written."""
    several = "The hammers are there."
    tools = [text for text in TEST[2] if "hammer" not in text.lower() or text == several]
    for lists in (TEST, (*TEST[:2], tools, TEST[3])):
        [hammer] = [word for word in listed_words(lists)[2] if several in word.sentences]
        assert hammer.is_among({"saw", "Hammers"})
        assert not hammer.is_among({"saw"})
    assert ListedWord("hammer").is_among({"hammer"})
    assert not ListedWord("hammer").is_among({"Hammer", "hammers"})
