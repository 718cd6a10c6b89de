# SPDX-License-Identifier: Apache-2.0
"""What a dry run calls the least number is so: ideal scores PASS the real assessment with it, and never below."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest

import made_up_scores
from cloister.gate import BARS, MARGINS, Gate
from cloister.sizes import needed
from cloister_workers.messages import Verdict
from cloister_workers.trainer.debias.assess import assess, assess_utility, with_holm
from cloister_workers.trainer.debias.gate import Wanted, judge
from cloister_workers.trainer.debias.kinds import FloatArray
from cloister_workers.trainer.debias.measure import Items, Measure
from cloister_workers.trainer.debias.measures import (
    bbq,
    crows_pairs,
    group_gaps,
    regard,
    retrieval_stereotype,
    retrieval_swap,
    stereoset,
    winobias,
    winogender,
)
from cloister_workers.trainer.debias.results import Estimate, Kept, Measured
from cloister_workers.trainer.debias.statistics.exact import clopper_pearson

GATE = Gate(draws=400)
KEPT = Kept("accuracy", *(Estimate(0.9, 0.89, 0.91),) * 2, Estimate(0, -0.001, 0.001), 2000, 2000, 0.01)
REAL = {
    measure.name: measure
    for module in (bbq, crows_pairs, group_gaps, regard, retrieval_stereotype, retrieval_swap, stereoset, winobias)
    for measure in module.MEASURES
} | {measure.name: measure for measure in winogender.MEASURES}
Rows = list[tuple[object, str, list[float], list[float]]]
"""Content, group, scores before and scores after: of one independent item."""


def answers(number: int) -> Rows:
    """An ambiguous BBQ template: two biased answers, then `unknown` twice."""
    return [(SimpleNamespace(target=0), "neg", [0, 1, 1], [1, 0, 0])] * 2


def clear_answers(number: int) -> Rows:
    """A BBQ template whose context tells: all answers biased, then half of them."""
    return [(SimpleNamespace(target=0), "neg", [1, 1, 1], [1, biased, 1]) for biased in (0, 1)]


def sentences(number: int) -> Rows:
    """A target term, or a pair of antecedents: all stereotyped, then one of two."""
    return [(None, "stereo", [1, 1, 1], [won, 1, 1]) for won in (0, 1)]


def pronouns(*groups: str) -> Callable[[int], Rows]:
    """Sentences that the model gets right for one group, then for both."""
    return lambda number: [(None, group, [float(group == groups[0])], [1.0]) for group in groups for _ in range(2)]


def searches(number: int) -> Rows:
    return [(SimpleNamespace(side=side), group, [1.0], [0.0]) for side, group in ((1, "a"), (-1, "b"))]


def decisions(number: int) -> Rows:
    """A person of each group with six texts: one group is chosen once in six, the other five times; then half."""
    found: Rows = []
    for text in range(6):
        truth, second = [float(text % 2), float(text % 2 == 0)], [float(text % 2), float(text % 2 == 0)]
        for group, chosen in (("a", text < 1), ("b", text < 5)):
            first = [float(chosen), float(not chosen)]
            row = SimpleNamespace(label=str(truth.index(1.0)), person=group)
            found.append((row, group, [*first, *truth], [*second, *truth]))
    return found


SHAPES: dict[str, Callable[[int], Rows]] = {
    "bbq_ambiguous": answers,
    "bbq_disambiguated": clear_answers,
    "stereoset": sentences,
    "crows_diff_bb": sentences,
    "winobias_type1": pronouns("pro", "anti"),
    "winobias_type2": pronouns("pro", "anti"),
    "winogender": pronouns("male", "female"),
    "regard": pronouns("female", "male"),
    "retrieval_stereotype": searches,
    "retrieval_swap": searches,
    "demographic_parity": decisions,
    "equalized_odds": decisions,
    "impact_ratio": decisions,
}


def made_up(shape: Callable[[int], Rows], count: int) -> tuple[Items, FloatArray, FloatArray]:
    rows = [(f"c{number}{getattr(row[0], 'person', '')}", *row) for number in range(count) for row in shape(number)]
    names, content, groups, before, after = zip(*rows, strict=True)
    return Items(content, names, groups), np.array(before, dtype=np.float64), np.array(after, dtype=np.float64)


def assessed(measure: Measure, shape: tuple[Items, FloatArray, FloatArray], *, primary: bool = True) -> Measured:
    return assess(measure, "gender", *shape, GATE, primary=primary, seed=1)


def verdict(measure: Measure, items: Items, before: FloatArray, after: FloatArray) -> Verdict:
    entries = with_holm([assessed(measure, (items, before, after))])
    wanted = Wanted(((measure.name, "gender"),), ("accuracy",))
    gate = Gate(draws=400, extrinsic=False)
    return judge(entries, [KEPT], wanted, gate, weights_changed=True).verdict


@pytest.mark.parametrize("name", list(SHAPES))
def test_pass_is_possible_with_the_least_number_and_not_below(name: str) -> None:
    """Ideal scores of as many templates, terms, occupations or persons a group PASS, and those of one fewer do not."""
    least = needed(name, BARS[name]).least
    assert Verdict.PASS is verdict(REAL[name], *made_up(SHAPES[name], least))
    assert Verdict.INCONCLUSIVE is verdict(REAL[name], *made_up(SHAPES[name], least - 1))


@pytest.mark.parametrize("measure", [made_up_scores.FLIP, made_up_scores.DELTA])
def test_the_same_of_single_flips_and_of_means(measure: Measure) -> None:
    """183 texts without a flip PASS, 182 do not; a mean of nats does with 20 and does not with 19."""
    for fewer, expected in ((0, Verdict.PASS), (1, Verdict.INCONCLUSIVE)):
        count = needed(measure.name, BARS[measure.name]).least - fewer
        items = made_up_scores.Shape(count).items()
        assert expected is verdict(measure, items, np.ones((count, 1)), np.zeros((count, 1)))


@pytest.mark.parametrize("bar", [2.0, 5.0, 10.0, 20.0])
def test_fewer_pairs_than_the_least_number_never_show_one_half(bar: float) -> None:
    """Exact limits of half of the pairs, one fewer than the least number, are wider than the bar."""
    pairs = needed("crows_pll_nangia", bar).least - 1
    low, high = clopper_pearson(pairs // 2, pairs, 0.05)
    assert low < 0.5 - bar / 100 or high > 0.5 + bar / 100


def test_the_least_number_of_a_loss_is_that_of_the_assessment() -> None:
    """Accuracy that is kept on as many texts is within the margin, on one fewer it may not be."""
    least = needed("accuracy", MARGINS["accuracy"]).least
    for count, inside in ((least, True), (least - 1, False)):
        items, right = made_up_scores.Shape(count).items(), np.ones((count, 1))
        loss = assess_utility(made_up_scores.RIGHT, items, right, right, GATE, 1).loss
        assert inside is (loss.high <= MARGINS["accuracy"])


@pytest.mark.parametrize("name", ["crows_ll_causal", "stereoset", "bbq_ambiguous", "regard", "demographic_parity"])
def test_a_measure_that_guards_has_its_own_least_number(name: str) -> None:
    """Unmoved scores show no harm with the least number of a measure that is not primary, and one fewer do not."""
    least = needed(name, BARS[name], guards=True).least
    shape = SHAPES.get(name) or (lambda number: sentences(number)[:1])
    good = made_up_scores.Shape(200).items()
    primary = assess(made_up_scores.DELTA, "gender", good, np.ones((200, 1)), np.zeros((200, 1)), GATE, True, 1)
    for count, expected in ((least, Verdict.PASS), (least - 1, Verdict.INCONCLUSIVE)):
        items, _, after = made_up(shape, count)
        guard = assessed(REAL[name], (items, after, after), primary=False)
        wanted = Wanted((("pair_preference", "gender"),), ("accuracy",), ((name, "gender"),))
        gate = Gate(draws=400, extrinsic=False)
        assert expected is judge(with_holm([primary, guard]), [KEPT], wanted, gate, weights_changed=True).verdict


def test_more_biased_answers_never_look_better() -> None:
    """The upper limit does not fall as biased answers appear; 25 templates never show a bar of 10 even with none."""
    items, before, _ = made_up(lambda number: answers(number)[:1] * 70, 25)
    found = []
    for count in (0, 1, 2, 5, 25, 70):
        after = np.tile([1.0, 0.0, 0.0], (len(items), 1))
        after[[70 * (place % 25) + place // 25 for place in range(count)]] = [0, 1, 1]
        found.append(assessed(REAL["bbq_ambiguous"], (items, before, after)).bias_after.high)
    assert found == sorted(found)
    assert found[0] > BARS["bbq_ambiguous"]
