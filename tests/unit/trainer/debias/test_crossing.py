# SPDX-License-Identifier: Apache-2.0
"""Words and names of the test part: kept from what a mitigation sees, or counted and told."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest

from cloister.gate import Gate
from cloister_workers.trainer.debias.assess import assess
from cloister_workers.trainer.debias.dividing import Role
from cloister_workers.trainer.debias.lexicon import load_lexicon
from cloister_workers.trainer.debias.material import Material, Part, RowType
from cloister_workers.trainer.debias.measure import Items, Missing
from cloister_workers.trainer.debias.measures.bbq import BbqRow
from cloister_workers.trainer.debias.measures.crows_pairs import CrowsPair
from cloister_workers.trainer.debias.measures.stereoset import StereoSetRow
from cloister_workers.trainer.debias.measures.winobias import WinoBiasRow
from cloister_workers.trainer.debias.measures.winogender import WinogenderRow
from cloister_workers.trainer.debias.partition import Partition, divide_lexicons, make_partition
from cloister_workers.trainer.debias.registry import measures
from cloister_workers.trainer.debias.shapes import Labelled, Preference, Text
from cloister_workers.trainer.debias.subfigures import NOT_AT_HAND

LEXICON = load_lexicon("gender", "en")
WORDS = {role: lexicons["gender"] for role, lexicons in divide_lexicons({"gender": LEXICON}).items()}
BUILT_IN = {
    *("flip_rate", "token_fairness", "demographic_parity", "equalized_odds", "worst_group_gap", "impact_ratio"),
    *("pair_preference", "crows_pll_nangia", "crows_diff_bb", "crows_ll_causal", "stereoset", "regard"),
    *("bbq_ambiguous", "bbq_disambiguated", "winobias_type1", "winobias_type2", "winogender"),
    *("association", "probe_linear", "probe_nonlinear", "retrieval_swap", "retrieval_stereotype"),
}


def name_of(role: Role) -> str:
    return WORDS[role].names[0].words[0]


def notes(count: int, seed: int = 1) -> list[Labelled]:
    """Labelled rows, each about a person whose name is of any part; nine in ten of a label are of one group."""
    draw, found = random.Random(seed), []
    for number in range(count):
        label = ("yes", "no")[number % 2]
        place = (number % 2) ^ (draw.random() < 0.1)
        text = f"note {number}: {draw.choice(LEXICON.names).words[place]} was here"
        found.append(Labelled(text, label, {"gender": ("female", "male")[place]}, person=f"p{number // 2}"))
    return found


def marked(parts: Partition, measure: str) -> Items:
    items = measures()[measure].items(parts.test, "gender")
    assert isinstance(items, Items)
    return parts.at_hand.mark(items)


def names_in(rows: tuple[Labelled, ...]) -> set[str]:
    return {row.text.split(": ")[1].removesuffix(" was here") for row in rows}


def test_rows_that_name_a_test_word_are_left_out():
    """Of many labelled rows of one dataset none to fit on or to choose by has a name of the test part, and no item of
    the flip rate names what was at hand; rows, texts and persons stay apart, and nothing goes uncounted.
    """
    rows = notes(2000)
    parts = make_partition(rows, [], [], {"gender": LEXICON}, seed=1)
    fit, validation, test = (part.rows.of(Labelled) for part in (parts.fit, parts.validation, parts.test))
    mine = {word for entry in WORDS[Role.TEST].names for word in entry.words}
    assert len(fit) > 600
    assert not names_in((*fit, *validation)) & mine
    assert len(fit) + len(validation) + len(test) + parts.left_out + parts.dropped == len(rows)
    assert parts.left_out > 400
    assert parts.crossing == 0
    assert not {row.person for row in (*fit, *validation)} & {row.person for row in test}
    items = marked(parts, "flip_rate")
    assert len(items.overlap) == len(items) > 50
    assert not any(items.overlap)
    assert all(count >= 25 for count in Counter((row.label, row.groups["gender"]) for row in fit).values())


def test_rows_stay_where_a_label_of_a_group_would_be_left_with_few():
    """Rows of too small a cell all stay; then the flip rate's items count as naming what was at hand."""
    parts = make_partition(notes(300), [], [], {"gender": LEXICON}, seed=1, validation_fraction=0.0)
    assert parts.left_out == 0
    assert parts.crossing > 50
    items = marked(parts, "flip_rate")
    assert sum(items.overlap) > len(items) / 2


def test_only_mitigated_axes_take_rows_away():
    """A word of a guarded axis costs no row: nothing is mitigated on it."""
    rows = [Text(f"{name_of(Role.TEST)} slept {number} times.") for number in range(30)]
    rows += [Text(f"It rained {number} times.") for number in range(90)]
    lexicons = {"gender": LEXICON, "age": load_lexicon("age", "en")}
    found = [make_partition(rows, [], [], lexicons, seed=1, axes=axes).left_out > 0 for axes in (["gender"], ["age"])]
    assert found == [True, False]


def test_a_preference_is_read_whole():
    """A test word in the answer to prefer or to avoid counts like one in the prompt."""
    rows = [Preference(f"Who came {number}?", f"{name_of(Role.TEST)} did.", "No one.") for number in range(5)]
    rows += [Preference(f"Who left {number}?", "Some did.", "No one.") for number in range(100)]
    parts = make_partition(rows, [], [], {"gender": LEXICON}, seed=1, evaluation_fraction=0.0, validation_fraction=0.0)
    assert (parts.left_out, len(parts.fit.rows.of(Preference))) == (5, 100)


@pytest.mark.parametrize(("role", "named"), [(Role.FIT, True), (Role.VALIDATION, True), (Role.TEST, False)])
def test_published_items_that_name_a_word_at_hand_are_marked(role, named):
    """A pair with a word of the lists to fit on or to choose by is marked, one with a test word or a pronoun is not."""
    pairs = [
        CrowsPair("1", "gender", f"{name_of(role)} cannot read maps.", "Trees cannot read maps.", "stereo"),
        CrowsPair("2", "gender", "She cannot read maps.", "He cannot read maps.", "stereo"),
    ]
    parts = make_partition([], [], pairs, {"gender": LEXICON}, seed=1)
    assert marked(parts, "crows_diff_bb").overlap == (named, False)


def test_every_measure_says_what_is_read_of_its_items():
    """No built-in measure has items whose words cannot be looked at."""
    published: list[RowType] = [
        CrowsPair("1", "gender", "more", "less", "stereo"),
        StereoSetRow("1", "gender", "chess", "he plays", "she plays", "it plays"),
        *(
            BbqRow("1", "gender", "1", "neg", said, "c", "q", ("a", "b", "u"), 0, 2, 0)
            for said in ("ambig", "disambig")
        ),
        *(WinoBiasRow("1", kind, to, "t", "he", ("A", "B"), 0) for kind in (1, 2) for to in ("pro", "anti")),
        *(WinogenderRow("1", f"{word} ran", to, "a", "b", 0, word) for word, to in (("he", "male"), ("she", "female"))),
    ]
    own = [Labelled(f"{word} ran", "yes", {"gender": to}) for word, to in (("he", "male"), ("she", "female"))]
    part = Part(Material.from_rows([*published, *own]), {"gender": WORDS[Role.TEST]})
    for name in BUILT_IN:
        items = measures()[name].items(part, "gender")
        assert not isinstance(items, Missing), name
        assert len(items.texts) == len(items), name
        assert all(" ".join(texts) for texts in items.texts), name


def test_the_items_that_share_no_word_have_a_figure_of_their_own():
    """The overlap is counted, and the flip rate of the other items stands among the groups with its interval."""
    rows = notes(200)
    marks = tuple(number < 50 for number in range(100))
    both = tuple(zip(rows[:100], rows[100:], strict=True))
    clusters = tuple(map(str, range(100)))
    items = Items(both, clusters, ("female",) * 100, overlap=marks)
    before = np.array([[float(mark)] for mark in marks])
    found = assess(measures()["flip_rate"], "gender", items, before, before, Gate(draws=200), True, 1)
    assert (found.overlap, found.before.value) == (50, 0.5)
    group = next(entry for entry in found.groups if entry.group == NOT_AT_HAND)
    assert (group.items, group.before.value) == (50, 0.0)
    told = assess(measures()["flip_rate"], "gender", Items(both, clusters), before, before, Gate(draws=200), True, 1)
    assert told.overlap is None
    assert NOT_AT_HAND not in {entry.group for entry in told.groups}
