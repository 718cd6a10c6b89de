# SPDX-License-Identifier: Apache-2.0
"""Axes of more than two groups: each is measured against the first, and what is not compared is counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from cloister_workers.trainer.debias.comparisons import comparisons
from cloister_workers.trainer.debias.lexicon import Lexicon, SwapSet, load_lexicon
from cloister_workers.trainer.debias.lexicon.terms import UNTOLD
from cloister_workers.trainer.debias.material import Material, Part
from cloister_workers.trainer.debias.measures.association import Association
from cloister_workers.trainer.debias.measures.pair_preference import PairPreference
from cloister_workers.trainer.debias.measures.retrieval_stereotype import RetrievalStereotype
from cloister_workers.trainer.debias.measures.retrieval_swap import RetrievalSwap
from cloister_workers.trainer.debias.panel import left_out
from cloister_workers.trainer.debias.partition import make_partition

OTHERS = ("african", "asian", "hispanic", "arab")
LISTS = ("competence_failure", "pleasant_unpleasant")
ETHNICITY = load_lexicon("ethnicity", "en")
TESTS = {f"{name}: european and {group}" for name in LISTS for group in OTHERS}


@pytest.fixture(scope="module")
def part() -> Part:
    return make_partition([], [], [], {"ethnicity": ETHNICITY}, seed=1).test


class Leaning:
    """An encoder that likes one group: words of it lie with the second list, everything else with the first."""

    def __init__(self, part: Part, group: str) -> None:
        lexicon = part.lexicons["ethnicity"]
        self.far = {*lexicon.terms()[group], *(word for entry in lexicon.associations for word in entry.second)}

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        side = [any(word in text for word in self.far) for text in texts]
        return np.stack([[1.0, 0.0] if far else [0.0, 1.0] for far in side])


@pytest.mark.parametrize("group", OTHERS)
def test_a_lean_against_any_group_shows(part: Part, group: str) -> None:
    """Each group of the built-in axis has its tests, and only those of the group that suffers are far off."""
    measure: Any = Association()
    items = measure.items(part, "ethnicity")
    shown = measure.parts(items, measure.score(Leaning(part, group), items), np.ones((1, len(items))))
    assert TESTS == set(shown)
    least = min(float(shown[f"{name}: european and {group}"][0]) for name in LISTS)
    assert least > max(abs(float(value[0])) for name, value in shown.items() if not name.endswith(f" {group}"))
    assert least > 1
    assert {UNTOLD: 6} == {why: count for why, count in items.left_out.items() if count}


def test_preference_and_its_mitigations_speak_of_every_group(part: Part) -> None:
    """Sentences, blocks and comparisons name persons of all five groups."""
    items: Any = PairPreference().items(part, "ethnicity")
    assert TESTS == set(items.groups)
    words = part.lexicons["ethnicity"].terms()
    spoken = [second for contrast in items.content for _, second in contrast.sentences]
    compared = [entry.persons[1] for entry in comparisons(part.lexicons["ethnicity"], 400, 1)]
    for texts in (spoken, compared):
        assert set(OTHERS) == {
            group for group in OTHERS if any(word in text for word in words[group] for text in texts)
        }
    assert 6 == items.left_out[UNTOLD]


def test_searches_ask_for_every_group(part: Part) -> None:
    """Each group has queries; the figure is the mean of each other group with the first."""
    measure: Any = RetrievalStereotype()
    items = measure.items(part, "ethnicity")
    assert {"european", *OTHERS} == set(items.groups)
    scores = np.array([{"european": 0.4, "african": 0.8, "asian": -0.4}.get(group, 0.0) for group in items.groups])
    parts = measure.parts(items, scores[:, None], np.ones((1, len(items))))
    assert [0.6, 0.0, 0.2, 0.2] == pytest.approx([float(parts[f"european and {group}"][0]) for group in OTHERS])
    assert 0.25 == pytest.approx(measure.figure(items, scores[:, None], np.ones((1, len(items))))[0])


def test_two_groups_have_nothing_left_out() -> None:
    """On an axis of two groups tests keep their names and nothing is counted."""
    part = make_partition([], [], [], {"gender": load_lexicon("gender", "en")}, seed=1).test
    for measure in (Association(), PairPreference(), RetrievalStereotype()):
        items: Any = measure.items(part, "gender")
        assert [] == left_out(items)
    assert {"career_family", "power_care", "science_art"} == set(PairPreference().items(part, "gender").groups)  # type: ignore[union-attr]


def test_groups_without_persons_and_beyond_the_sixth_are_counted(part: Part) -> None:
    """What cannot be compared is in the report with its number."""
    lexicon = part.lexicons["ethnicity"]
    silent = replace(
        lexicon,
        groups=(*lexicon.groups, "sixth", "seventh"),
        swaps=tuple(replace(entry, words=(*entry.words, "", "")) for entry in lexicon.swaps),
        names=(SwapSet(("Ann", "Ben", "Cia", "Dan", "Eva", "Fay", "Guy"), "name", person="{}"),),
    )
    wide = Part(Material(), {"ethnicity": silent})
    swapped: Any = RetrievalSwap().items(wide, "ethnicity")
    assert "1 left out: groups beyond the first 6" in left_out(swapped)
    nameless: Lexicon = replace(silent, names=())
    few = Part(Material(), {"ethnicity": nameless})
    spoken: Any = PairPreference().items(few, "ethnicity")
    assert "2 left out: groups without a person beside one of the first group" in left_out(spoken)
    tested: Any = Association().items(few, "ethnicity")
    assert "4 left out: tests with fewer than 5 words of this part in a list" in left_out(tested)
