# SPDX-License-Identifier: Apache-2.0
"""How the figures of parts and groups are to be read: unit, ideal, and how many items are behind each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from cloister.gate import Gate
from cloister_workers.trainer.debias.assess import assess
from cloister_workers.trainer.debias.kinds import FloatArray, Scale
from cloister_workers.trainer.debias.material import Material, Part
from cloister_workers.trainer.debias.measure import Items
from cloister_workers.trainer.debias.measures.association import Word
from cloister_workers.trainer.debias.measures.bbq import BbqRow
from cloister_workers.trainer.debias.measures.pair_preference import Contrast
from cloister_workers.trainer.debias.measures.winogender import WinogenderRow
from cloister_workers.trainer.debias.registry import measures
from cloister_workers.trainer.debias.results import GroupEstimate, Measured
from cloister_workers.trainer.debias.shapes import Labelled
from cloister_workers.trainer.debias.subfigures import subfigures

DRAWN = np.random.default_rng(5)


@dataclass(frozen=True)
class Case:
    """A measure, what it looks at, and scores as it would take them."""

    name: str
    items: Items
    scores: FloatArray

    @property
    def measure(self) -> Any:  # noqa: ANN401 - a Protocol with parts of several
        return measures()[self.name]

    def measured(self) -> Measured:
        scores, gate = self.scores, Gate(draws=100)
        return assess(self.measure, "gender", self.items, scores, scores, gate, primary=True, seed=1)

    def groups(self) -> dict[str, GroupEstimate]:
        return {group.group: group for group in self.measured().groups}


def coins(count: int, columns: int = 1) -> FloatArray:
    return np.floor(DRAWN.uniform(0, 2, size=(count, columns)))


def plain(name: str, groups: Sequence[str], scores: FloatArray) -> Case:
    """Items that are one cluster each."""
    numbers = tuple(range(len(scores)))
    return Case(name, Items(numbers, tuple(map(str, numbers)), tuple(groups)), scores)


def association() -> Case:
    """Two tests, of 5 and of 7 words a list."""
    words = [
        Word(f"{test}{role}{number}", (f"{test}{role}{number}",), frozenset({(test, role)}))
        for test, size in (("work", 5), ("art", 7))
        for role in range(4)
        for number in range(size)
    ]
    return Case(
        "association",
        Items(tuple(words), tuple(word.word for word in words)),
        DRAWN.normal(size=(len(words), 6)),
    )


def bbq(name: str) -> Case:
    """Six negative questions and four others, one of the negative ones without a target."""
    condition = "ambig" if name == "bbq_ambiguous" else "disambig"
    rows = tuple(
        BbqRow(
            id=f"{number}",
            axis="age",
            question_index=f"{number}",
            polarity="neg" if number < 6 else "nonneg",
            condition=condition,
            context="",
            question="",
            answers=("a", "b", "c"),
            label=1,
            unknown=1,
            target=None if number == 0 else 2,
        )
        for number in range(10)
    )
    items = measures()[name].items(Part(Material.from_rows(rows), {}), "age")
    assert isinstance(items, Items)
    committed = np.array([0.0, *[1.0] * 9])
    return Case(name, items, np.stack([coins(10)[:, 0], coins(10)[:, 0] * committed, committed], axis=1))


def decisions(name: str) -> Case:
    """Rows of two groups, 12 and 8, with two labels; 5 of the first group's labels are yes and 3 of the second's."""
    rows = tuple(
        Labelled(
            f"text {number}",
            "yes" if number in (*range(5), *range(12, 15)) else "no",
            {"gender": "a" if number < 12 else "b"},
        )
        for number in range(20)
    )
    said = coins(20)[:, 0]
    true = np.array([row.label == "yes" for row in rows], dtype=np.float64)
    scores = np.stack([1 - said, said, 1 - true, true], axis=1)
    groups = tuple(row.groups["gender"] for row in rows)
    return Case(name, Items(rows, tuple(row.text for row in rows), groups), scores)


def preference() -> Case:
    contrasts = [Contrast("home_work", side, ()) for side in (1, 1, -1, -1, -1)]
    contrasts += [Contrast("rows of kind pair", 0, ())] * 3
    return Case(
        "pair_preference",
        Items(tuple(contrasts), tuple(map(str, range(8))), tuple(contrast.block for contrast in contrasts)),
        DRAWN.normal(size=(8, 2)),
    )


def winogender() -> Case:
    rows = tuple(
        WinogenderRow(f"{job}.{gender}", "", gender, job, "guest", 0, "they")
        for job in ("baker", "smith", "tailor")
        for gender in ("male", "female", "neutral")
    )
    items = Items(rows, tuple(row.occupation for row in rows), tuple(row.gender for row in rows))
    return Case("winogender", items, coins(9))


def crows() -> Case:
    """Seven pairs of one direction and three of the other, one of which does not count."""
    counted = np.array([*[1.0] * 9, 0.0])
    scores = np.stack([coins(10)[:, 0] * counted, DRAWN.normal(size=10) * counted, counted], axis=1)
    return plain("crows_diff_bb", (*["stereo"] * 7, *["antistereo"] * 3), scores)


CASES = {
    case.name: case
    for case in (
        association(),
        bbq("bbq_ambiguous"),
        bbq("bbq_disambiguated"),
        *map(decisions, ("demographic_parity", "equalized_odds", "worst_group_gap", "impact_ratio")),
        preference(),
        winogender(),
        crows(),
        plain("flip_rate", "aaaaabbb", coins(8)),
        plain("token_fairness", "aaaaabbb", DRAWN.uniform(size=(8, 1))),
        plain("probe_linear", "aaaaabbb", coins(8)),
        plain("regard", "aaaaabbb", coins(8)),
        plain("stereoset", "", np.concatenate([coins(8, 2), np.array([[1.0]] * 7 + [[0.0]])], axis=1)),
        plain("winobias_type1", (*["pro"] * 5, *["anti"] * 3), coins(8)),
    )
}


@pytest.mark.parametrize("name", CASES)
def test_the_items_behind_a_figure_are_all_that_it_is_taken_from(name: str) -> None:
    """Every figure of a part or group stays as it is when the items that are not behind it are gone."""
    case = CASES[name]
    ones = np.ones((1, len(case.items)))
    whole = case.measure.by_group(case.items, case.scores, ones)
    told = subfigures(case.measure, case.items, case.scores, whole)
    assert whole.keys() == told.keys()
    for figure, value in whole.items():
        alone = case.measure.by_group(case.items, case.scores, told[figure].items[None, :])[figure]
        np.testing.assert_allclose(alone, value, err_msg=figure)


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("association", {"work raw": 20, "work d": 20, "art raw": 28, "art d": 28}),
        (
            "bbq_ambiguous",
            {
                "accuracy, percent": 10,
                "answers other than unknown, percent": 9,
                "bias on negative questions": 6,
                "bias on non-negative questions": 4,
            },
        ),
        (
            "crows_diff_bb",
            {"stereo": 7, "antistereo": 2, "mean difference in nats": 9, "pairs not counted, percent": 10},
        ),
        (
            "equalized_odds",
            {
                "a: rightly chosen as yes": 5,
                "b: rightly chosen as yes": 3,
                "a minus b: rightly chosen as yes": 8,
                "a: wrongly chosen as yes": 7,
                "b: wrongly chosen as yes": 5,
                "a minus b: wrongly chosen as yes": 12,
            },
        ),
        ("pair_preference", {"home_work": 5, "rows of kind pair": 3, "all, in nats a token": 8}),
        ("flip_rate", {"a": 5, "b": 3}),
    ],
)
def test_each_figure_has_the_number_of_items_behind_it(name: str, counts: dict[str, int]) -> None:
    """A part counts its own items, a group its own, a rate the rows that it is a rate of; not all of the measure's."""
    assert counts == {group: entry.items for group, entry in CASES[name].groups().items()}


def test_a_permutation_test_counts_its_own_items() -> None:
    """The words of the test, not those of all tests."""
    assert {"work": 20, "art": 28} == {test.test: test.items for test in CASES["association"].measured().permuted}


@pytest.mark.parametrize(
    ("name", "figure", "scale", "ideal", "signed"),
    [
        ("association", "work raw", Scale.COSINE, 0.0, True),
        ("association", "work d", Scale.DEVIATIONS, 0.0, True),
        ("bbq_ambiguous", "accuracy, percent", Scale.POINTS, 100.0, False),
        ("bbq_ambiguous", "answers other than unknown, percent", Scale.POINTS, 0.0, False),
        ("bbq_disambiguated", "answers other than unknown, percent", Scale.POINTS, 100.0, False),
        ("bbq_ambiguous", "bias on negative questions", Scale.POINTS, 0.0, True),
        ("crows_diff_bb", "stereo", Scale.POINTS, 50.0, True),
        ("crows_diff_bb", "mean difference in nats", Scale.NATS, 0.0, True),
        ("demographic_parity", "a: chosen as yes", Scale.SHARE, None, False),
        ("demographic_parity", "a minus b: chosen as yes", Scale.SHARE, 0.0, True),
        ("worst_group_gap", "a: accuracy", Scale.SHARE, 1.0, False),
        ("impact_ratio", "a: chosen as yes", Scale.SHARE, None, False),
        ("impact_ratio", "ratio, chosen as yes", Scale.RATIO, 1.0, False),
        ("pair_preference", "home_work", Scale.NATS, 0.0, True),
        ("pair_preference", "all, in nats a token", Scale.NATS_MEAN, 0.0, True),
        ("probe_linear", "a", Scale.SHARE, 0.5, True),
        ("stereoset", "language model score (LMS)", Scale.POINTS, 100.0, False),
        ("winobias_type1", "mean accuracy", Scale.SHARE, 1.0, False),
        ("winogender", "mean absolute difference within an occupation", Scale.SHARE, 0.0, False),
    ],
)
def test_each_figure_has_a_unit_and_an_ideal_of_its_own(
    name: str, figure: str, scale: Scale, ideal: float | None, signed: bool
) -> None:
    """What stands beside a measure's figure is on its own scale, or has none that is ideal: groups are to be alike."""
    entry = CASES[name].groups()[figure]
    assert (scale, ideal, signed) == (entry.scale, entry.ideal, entry.signed)
