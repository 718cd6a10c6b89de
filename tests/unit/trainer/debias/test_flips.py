# SPDX-License-Identifier: Apache-2.0
"""Decisions under swapped groups, on lists and classifiers written for the test."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import log_softmax

from cloister_workers.trainer.debias.lexicon.terms import Lexicon, SwapSet
from cloister_workers.trainer.debias.measure import Items, Missing
from cloister_workers.trainer.debias.measures.flips import MEASURES
from cloister_workers.trainer.debias.shapes import Labelled, Pair
from cloister_workers.trainer.debias.subjects.thresholded import Rule, ThresholdedSubject
from tiny_classifier import Scripted, part_of

FLIPS, FAIRNESS = MEASURES
LEXICON = Lexicon(
    axis="gender",
    language="en",
    groups=("male", "female"),
    swaps=(SwapSet(("he", "she"), "function"), SwapSet(("uncle", "aunt"))),
    excluded=frozenset({"pregnant"}),
    held_out=(SwapSet(("father", "mother")),),
)
ROWS = (
    Labelled("he writes well", "yes", {"gender": "male"}, person="p1"),
    Labelled("the aunt sings", "no", {"gender": "female"}, person="p2"),
    Labelled("she runs", "no", {"gender": "female"}, person="p2"),
    Labelled("it rains", "no"),
    Labelled("she is pregnant", "yes", {"gender": "female"}),
    Labelled("the mother waits", "yes", {"gender": "female"}),
)
PART = part_of(*ROWS, lexicons={"gender": LEXICON})
TABLE = {
    "he writes well": [0.0, 2.0],
    "she writes well": [0.5, 0.0],
    "the aunt sings": [1.0, 0.0],
    "the uncle sings": [3.0, 0.5],
    "she runs": [0.0, 0.1],
    "he runs": [0.0, 0.3],
}


def chosen(measure, part=PART, axis="gender"):
    items = measure.items(part, axis)
    assert isinstance(items, Items)
    return items


def figure(measure, items, subject, weights=None):
    scores = measure.score(subject, items)
    return measure.figure(items, scores, np.ones((1, len(items))) if weights is None else weights)


def test_the_share_of_changed_decisions():
    """One of three decisions changes with the swap."""
    items = chosen(FLIPS)
    assert [(row.text, other.text) for row, other in items.content] == [
        ("he writes well", "she writes well"),
        ("the aunt sings", "the uncle sings"),
        ("she runs", "he runs"),
    ]
    assert figure(FLIPS, items, Scripted(TABLE))[0] == pytest.approx(1 / 3)
    weights = np.array([[2.0, 1.0, 1.0], [0.0, 1.0, 1.0], [0.0, 0.0, 0.0]])
    found = figure(FLIPS, items, Scripted(TABLE), weights)
    np.testing.assert_allclose(found[:2], [0.5, 0.0])
    assert np.isnan(found[2])


def test_texts_that_cannot_be_swapped_are_counted_by_reason():
    """A text without a term, an asymmetric one and one with a word of another part are left out and counted."""
    items = chosen(FLIPS)
    assert sum(items.left_out.values()) == 3
    assert len(items.left_out) == 3


def test_rows_of_one_person_are_one_cluster():
    """The independent unit is the person."""
    first, second, third = chosen(FLIPS).clusters
    assert first != second
    assert second == third


def test_the_counterpart_states_the_other_group():
    """A swapped row carries the group that it now speaks of, for models that decide by group."""
    items = chosen(FLIPS)
    assert [other.groups["gender"] for _, other in items.content] == ["female", "male", "male"]
    never = Rule(0.0, 0.0, ((1.0, True, 1e9),))
    subject = ThresholdedSubject(Scripted(dict.fromkeys(TABLE, (0.0, 1.0))), "gender", {"female": never})
    assert figure(FLIPS, items, subject)[0] == 1.0


def test_two_classes_move_by_the_difference_of_logits():
    """With two classes the gap is the mean change of the difference of logits."""
    items = chosen(FAIRNESS)
    expected = np.mean([abs(2.0 - -0.5), abs(1.0 - 2.5), abs(0.1 - 0.3)])
    assert figure(FAIRNESS, items, Scripted(TABLE))[0] == pytest.approx(expected, abs=1e-12)


def test_more_classes_take_the_log_odds_of_the_decision():
    """With three classes the gap is of log p - log(1 - p) of the class decided for the text as it stands."""
    random = np.random.default_rng(1)
    table = {text: random.normal(size=3).tolist() for text in TABLE}
    items = chosen(FAIRNESS)
    expected = []
    for row, other in items.content:
        first, second = log_softmax(table[row.text]), log_softmax(table[other.text])
        place = int(np.argmax(first))
        expected.append(
            abs(first[place] - np.log1p(-np.exp(first[place])) - second[place] + np.log1p(-np.exp(second[place])))
        )
    found = figure(FAIRNESS, items, Scripted(table, ("p", "q", "r")))
    assert found[0] == pytest.approx(np.mean(expected), abs=1e-12)
    shifted = {text: [value + 7 for value in logits] for text, logits in table.items()}
    assert figure(FAIRNESS, items, Scripted(shifted, ("p", "q", "r")))[0] == pytest.approx(found[0], abs=1e-9)


def test_groups_are_those_of_the_texts_as_they_stand():
    """Figures of single groups say from which group a decision turns."""
    items = chosen(FLIPS)
    scores = FLIPS.score(Scripted(TABLE), items)
    found = FLIPS.by_group(items, scores, np.ones((1, 3)))
    assert {group: float(values[0]) for group, values in found.items()} == {"female": 0.0, "male": 1.0}


def test_pairs_count_as_they_stand():
    """Pairs of the axis need no word list; those of another axis are not looked at."""
    part = part_of(Pair("gender", "he runs", "she runs"), Pair("age", "he runs", "the uncle sings"))
    items = chosen(FLIPS, part)
    assert len(items) == 1
    assert figure(FLIPS, items, Scripted(TABLE))[0] == 0.0
    assert isinstance(FLIPS.items(part, "religion"), Missing)


def test_nothing_to_swap_is_missing():
    """Rows without any term are no material."""
    assert isinstance(FLIPS.items(part_of(ROWS[3], lexicons={"gender": LEXICON}), "gender"), Missing)
    assert isinstance(FLIPS.items(part_of(*ROWS), "gender"), Missing)
