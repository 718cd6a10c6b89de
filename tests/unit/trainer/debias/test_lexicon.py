# SPDX-License-Identifier: Apache-2.0
"""The built-in word lists hold together, and users' words join them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from importlib.resources import files

import pytest

from cloister_workers.messages import RowReason
from cloister_workers.trainer.debias.lexicon import (
    MIN_TERMS,
    Association,
    Lexicon,
    SwapSet,
    axes,
    check_sizes,
    fill,
    languages,
    load_lexicon,
)
from cloister_workers.trainer.debias.lexicon.rows import Swap, with_user_words
from cloister_workers.trainer.debias.shapes import parse_row
from cloister_workers.trainer.debias.swapping import Swapped, Swapper

BUILT_IN = [(axis, language) for language in languages() for axis in axes(language)]
TAGS = {"function", "noun", "adjective", "name"}
USES = {"", "dependent", "object", "independent"}


@pytest.fixture(params=BUILT_IN, ids="-".join)
def lexicon(request: pytest.FixtureRequest) -> Lexicon:
    return load_lexicon(*request.param)


def test_four_axes_in_english_and_one_in_german():
    """The axes that a job can name without lists of its own are these."""
    assert axes("en") == ("age", "ethnicity", "gender", "religion")
    assert axes("de") == ("gender",)
    assert axes("xx") == ()


def test_an_unknown_axis_is_refused_with_what_there_is():
    """Asking for a list that does not exist says which ones do."""
    with pytest.raises(ValueError, match=r"axis height in language en; there are .*gender \(en\)"):
        load_lexicon("height", "en")


def test_every_list_is_long_enough(lexicon):
    """No list of words has fewer than 25 different ones, and there are sentences enough to divide."""
    assert check_sizes(lexicon) == ()
    assert min(map(len, lexicon.terms().values())) >= MIN_TERMS
    assert len(lexicon.associations) >= 2
    assert len(lexicon.templates) >= 30
    assert len(lexicon.pair_templates) >= 40
    assert len(lexicon.neutral) >= 120
    assert len(lexicon.persons()) >= MIN_TERMS


@pytest.mark.parametrize("names", [("gender", "en"), ("ethnicity", "en"), ("gender", "de")], ids="-".join)
def test_names_are_paired_over_all_groups(names):
    """Gender and ethnicity have at least 25 sets of names, each with a name in every group and none twice."""
    lexicon = load_lexicon(*names)
    words = [word for entry in lexicon.names for word in entry.words]
    assert len(lexicon.names) >= MIN_TERMS
    assert all(words)
    assert len(set(words)) == len(words)


def test_sets_are_whole(lexicon):
    """Each set has a word for every group, a known tag and use, and a frame only around the word."""
    for entry in (*lexicon.swaps, *lexicon.names):
        assert len(entry.words) == len(lexicon.groups)
        assert all(entry.words), entry
        assert entry.tag in TAGS
        assert entry.use in USES
        assert not entry.person or entry.person.count("{}") == 1
        assert all(word == " ".join(word.split()) for word in entry.words)


def test_no_term_stands_for_two_groups(lexicon):
    """A content word, whatever its case, belongs to one group."""
    groups = Counter(word for words in lexicon.terms().values() for word in {word.casefold() for word in words})
    assert [word for word, count in groups.items() if count > 1] == []


def test_only_the_documented_words_have_several_counterparts():
    """Each content word stands in one set, save a few English words."""
    several = {
        (axis, word)
        for axis, language in BUILT_IN
        for word, count in Counter(
            word for entry in load_lexicon(axis, language).content() for word in entry.words
        ).items()
        if count > 1
    }
    kin = {("gender", word) for word in ("dad", "dads", "daddy", "bride")}
    assert several == kin | {("religion", word) for word in ("Christian", "Muslim")}  # adjective and noun


def test_no_term_belongs_to_two_axes():
    """The word lists of the axes of a language are disjoint, so that no word can be in two parts."""
    owners: dict[tuple[str, str], set[str]] = {}
    for axis, language in BUILT_IN:
        for entry in load_lexicon(axis, language).content():
            for word in entry.words:
                owners.setdefault((language, word.casefold()), set()).add(axis)
    assert [word for word, own in owners.items() if len(own) > 1] == []


def test_attributes_stand_once_and_on_one_side(lexicon):
    """No attribute is twice in a list or in both lists of an association, and none is a term of any axis."""
    swapper = _all_axes(lexicon.language)
    for entry in lexicon.associations:
        both = (*entry.first, *entry.second)
        assert len(set(both)) == len(both), entry.name
        assert [word for word in both if _terms(swapper, word)] == []


def test_sentences_stand_once_and_have_their_slots(lexicon):
    """Templates have each of their slots exactly once, and no sentence is in a list twice."""
    for sentences, slots in (
        (lexicon.templates, ("{word}",)),
        (lexicon.pair_templates, ("{person}", "{attribute}")),
        (lexicon.neutral, ()),
    ):
        assert len(set(sentences)) == len(sentences)
        for sentence in sentences:
            assert all(sentence.count(slot) == 1 for slot in slots), sentence
            assert sentence.count("{") == len(slots), sentence
            assert sentence.endswith("."), sentence


def test_sentences_speak_of_no_group(lexicon):
    """Neutral sentences and templates have no term of any axis of their language."""
    swapper = _all_axes(lexicon.language)
    sentences = (*lexicon.neutral, *lexicon.templates, *lexicon.pair_templates)
    assert [sentence for sentence in sentences if _terms(swapper, sentence)] == []


def test_no_name_is_a_common_word_and_no_term_is_excluded(lexicon):
    """Names that are words too are not on our lists, and no phrase that stops a swap is itself a term."""
    names = {word.casefold() for entry in lexicon.names for word in entry.words}
    assert names & lexicon.ambiguous == set()
    terms = {word.casefold() for words in lexicon.terms().values() for word in words}
    assert terms & {word.casefold() for word in lexicon.excluded} == set()


def test_every_person_is_found_as_its_group(lexicon):
    """A phrase for {person} speaks of the group it stands for and of no other."""
    swapper = Swapper({lexicon.axis: lexicon})
    for persons in lexicon.persons():
        for group, person in zip(lexicon.groups, persons, strict=True):
            text = fill("{person} reads.", person=person)
            assert swapper.groups_of(text, lexicon.axis) == {group}, text


def test_the_lists_are_data_of_the_package():
    """Every file of the lists is reachable as package data, in UTF-8, and has no empty cell in its head."""
    data = files("cloister_workers.trainer.debias.lexicon") / "data"
    for axis, language in BUILT_IN:
        head = (data / language / axis / "swaps.tsv").read_text(encoding="utf-8").splitlines()[0].split("\t")
        assert head[:3] == ["tag", "use", "person"]
        assert tuple(head[3:]) == load_lexicon(axis, language).groups


def test_persons_are_put_as_their_frame_says():
    """A set without a frame names no person, and a set with a gap is left out of the lexicon's persons."""
    entries = (
        SwapSet(("uncle", "aunt"), person="my {}"),
        SwapSet(("uncles", "aunts")),
        SwapSet(("squire", ""), person="the {}"),
        SwapSet(("he", "she"), "function", person="{}"),
    )
    lexicon = Lexicon("gender", "en", ("male", "female"), entries, names=(SwapSet(("Al", "Bo"), "name", person="{}"),))
    assert lexicon.persons() == (("my uncle", "my aunt"), ("Al", "Bo"))
    assert lexicon.terms() == {"male": ("uncle", "uncles", "squire", "Al"), "female": ("aunt", "aunts", "Bo")}


@pytest.mark.parametrize(
    ("template", "slots", "wanted"),
    [
        ("{person} met us.", {"person": "my aunt"}, "My aunt met us."),
        ("We met {person}.", {"person": "my aunt"}, "We met my aunt."),
        ("{attribute} suits {person}.", {"person": "the cook", "attribute": "tact"}, "Tact suits the cook."),
    ],
)
def test_a_slot_that_opens_a_sentence_has_a_capital(template, slots, wanted):
    """Filling a template gives a well-written sentence."""
    assert fill(template, **slots) == wanted


def test_short_lists_are_told_by_position():
    """Lists under the minimum are named by axis and place, repeated words counted once; at the minimum all is well."""
    words = tuple(f"w{i}" for i in range(25))
    entries = tuple(SwapSet((word, f"{word}x")) for word in words)
    whole = Lexicon("a", "en", ("g", "h"), entries, associations=(Association("x", words, words),))
    assert check_sizes(whole) == ()
    short = replace(whole, swaps=entries[1:], associations=(Association("x", words, (*words[1:], words[1])),))
    assert [(entry.list, entry.count, entry.needed) for entry in check_sizes(short)] == [
        ("terms of group 1", 24, 25),
        ("terms of group 2", 24, 25),
        ("association 1, second list", 24, 25),
    ]


def _row(**changes: object) -> dict[str, object]:
    row = {"kind": "swap", "axis": "gender", "groups": ["male", "female"], "words": ["drake", "duck"], "tag": "noun"}
    return {**row, **changes}


def test_a_swap_row_is_read():
    """A user's row becomes a set of words; its tag may be absent and a word empty."""
    assert parse_row(_row()) == Swap("gender", ("male", "female"), ("drake", "duck"), "noun")
    bare = _row(groups=["a", "b", "c"], words=["x", "", " z "])
    del bare["tag"]
    assert parse_row(bare) == Swap("gender", ("a", "b", "c"), ("x", "", "z"), "noun")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"axis": ""}, RowReason.EMPTY_TEXT),
        ({"axis": 1}, RowReason.WRONG_TYPE),
        ({"groups": "male"}, RowReason.WRONG_TYPE),
        ({"groups": ["male"], "words": ["x"]}, RowReason.WRONG_TYPE),
        ({"groups": ["male", "male"]}, RowReason.WRONG_TYPE),
        ({"groups": ["male", ""]}, RowReason.EMPTY_TEXT),
        ({"words": ["drake"]}, RowReason.WRONG_TYPE),
        ({"words": ["drake", ""]}, RowReason.EMPTY_TEXT),
        ({"words": ["drake", 3]}, RowReason.WRONG_TYPE),
        ({"words": ["drake", "\ud800"]}, RowReason.INVALID_TEXT),
        ({"tag": "verb"}, RowReason.WRONG_TYPE),
        ({"tag": ["noun"]}, RowReason.WRONG_TYPE),
    ],
)
def test_a_wrong_swap_row_is_refused(changes, reason):
    """What is wrong with a user's row is told by a closed reason."""
    assert parse_row(_row(**changes)) is reason


def test_a_swap_row_without_its_words_is_refused():
    """Axis, groups and words must all be there."""
    for key in ("axis", "groups", "words"):
        row = _row()
        del row[key]
        assert parse_row(row) is RowReason.MISSING_KEY


def test_users_words_join_the_built_in_ones():
    """A user's row in any order of groups is a further set; one that is known already changes nothing."""
    lexicon = load_lexicon("gender", "en")
    rows = [
        Swap("gender", ("female", "male"), ("duck", "drake")),
        Swap("gender", ("male", "female"), ("uncle", "aunt")),
        Swap("gender", ("male", "female"), ("Bartholomew", "Clementine"), "name"),
    ]
    merged = with_user_words({"gender": lexicon}, rows, "en")["gender"]
    assert merged.swaps == (*lexicon.swaps, SwapSet(("drake", "duck")))
    assert merged.names == (*lexicon.names, SwapSet(("Bartholomew", "Clementine"), "name", person="{}"))


def test_a_new_group_widens_every_set():
    """A group that the axis does not have comes behind the others, with no word in the sets of before."""
    merged = with_user_words(
        {"gender": load_lexicon("gender", "en")}, [Swap("gender", ("neutral", "male"), ("sibling", "brother"))], "en"
    )["gender"]
    assert merged.groups == ("male", "female", "neutral")
    assert {len(entry.words) for entry in (*merged.swaps, *merged.names)} == {3}
    assert merged.swaps[-1].words == ("brother", "", "sibling")


def test_an_axis_of_the_users_own_works():
    """Rows alone make a lexicon that swaps."""
    rows = [Swap("diet", ("meat", "plants"), words) for words in (("butcher", "grocer"), ("steak", "salad"))]
    merged = with_user_words({}, rows, "en")
    assert merged["diet"].groups == ("meat", "plants")
    swapped = Swapper(merged).swap("The butcher praised a steak.", "diet")
    assert isinstance(swapped, Swapped)
    assert swapped.text == "The grocer praised a salad."


def _all_axes(language: str) -> Swapper:
    return Swapper({axis: load_lexicon(axis, language) for axis in axes(language)})


def _terms(swapper: Swapper, text: str) -> list[str]:
    return [term.word for axis in swapper.axes for term in swapper.terms_in(text, axis)]
