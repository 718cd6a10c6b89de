# SPDX-License-Identifier: Apache-2.0
"""Gaps between groups, with fairlearn as the oracle."""

from __future__ import annotations

from typing import Any

import fairlearn.metrics as fair
import numpy as np
import pytest
from sklearn.metrics import accuracy_score

from cloister.gate import Gate
from cloister_workers.messages import Verdict
from cloister_workers.trainer.debias.assess import assess
from cloister_workers.trainer.debias.gate import within
from cloister_workers.trainer.debias.measure import Compares, Items, Missing
from cloister_workers.trainer.debias.measures.group_gaps import MEASURES
from cloister_workers.trainer.debias.shapes import Labelled
from tiny_classifier import Scripted, part_of

PARITY, ODDS, WORST = MEASURES[:3]
IMPACT: Any = MEASURES[3]


def drawn(seed, count=240, groups=("a", "b", "c"), labels=("no", "yes")):
    """Rows of random groups and labels, and a classifier whose decisions lean on both."""
    random = np.random.default_rng(seed)
    rows, table = [], {}
    for number in range(count):
        group, label = random.integers(len(groups)), random.integers(len(labels))
        row = Labelled(f"text {number}", labels[label], {"axis": groups[group], "age": ("old", "young")[number % 2]})
        logits = random.normal(size=len(labels))
        logits[label] += 1.0
        logits[0] += 0.7 * group
        rows.append(row)
        table[row.text] = logits.tolist()
    return rows, Scripted(table, labels)


def taken(measure, rows, subject, axis="axis"):
    items = measure.items(part_of(*rows), axis)
    assert isinstance(items, Items)
    scores = measure.score(subject, items)
    return items, scores


def whole(measure, rows, subject, axis="axis"):
    items, scores = taken(measure, rows, subject, axis)
    return float(measure.figure(items, scores, np.ones((1, len(items))))[0])


def said_of(rows, subject):
    return [subject.labels[place] for place in subject.logits([row.text for row in rows]).argmax(axis=1)]


def plain(rows, subject, positive):
    """y, prediction and group as fairlearn takes them."""
    true = [int(row.label == positive) for row in rows]
    said = [int(label == positive) for label in said_of(rows, subject)]
    return true, said, {"sensitive_features": [row.groups["axis"] for row in rows]}


@pytest.mark.parametrize("seed", range(5))
def test_two_classes_equal_fairlearn(seed):
    """Parity, odds and worst group are fairlearn's to the last digits, whichever class is called positive."""
    rows, subject = drawn(seed)
    for positive in subject.labels:
        true, said, by = plain(rows, subject, positive)
        assert whole(PARITY, rows, subject) == pytest.approx(
            fair.demographic_parity_difference(true, said, **by), abs=1e-12
        )
        assert whole(ODDS, rows, subject) == pytest.approx(fair.equalized_odds_difference(true, said, **by), abs=1e-12)
        frame = fair.MetricFrame(metrics=accuracy_score, y_true=true, y_pred=said, **by)
        assert whole(WORST, rows, subject) == pytest.approx(frame.difference(method="between_groups"), abs=1e-12)


@pytest.mark.parametrize("labels", [("no", "yes"), ("p", "q", "r")])
def test_the_impact_ratio_is_the_smallest_of_fairlearns(labels):
    """Smallest over largest selection rate, of the class where that is smallest, is fairlearn's parity ratio."""
    rows, subject = drawn(2, labels=labels)
    parts = [plain(rows, subject, positive) for positive in labels]
    ratios = [fair.demographic_parity_ratio(true, said, **by) for true, said, by in parts]
    assert whole(IMPACT, rows, subject) == pytest.approx(min(ratios), abs=1e-12)
    items, scores = taken(IMPACT, rows, subject)
    shown = IMPACT.by_group(items, scores, np.ones((1, len(items))))
    assert [float(shown[f"ratio, chosen as {label}"][0]) for label in labels] == pytest.approx(ratios, abs=1e-12)


@pytest.mark.parametrize(("chosen", "verdict"), [((100, 100), Verdict.PASS), ((100, 50), Verdict.FAIL)])
def test_four_fifths_are_shown_by_the_whole_interval(chosen, verdict):
    """Of 1000 a group, rates of one half and one half are within the bar, one half and one quarter are beyond it."""
    rows, table = [], {}
    for group, count in zip("ab", chosen, strict=True):
        for number in range(1000):
            row = Labelled(f"{group} {number}", "yes", {"axis": group})
            rows.append(row)
            table[row.text] = [0.0, 1.0 if number < 5 * count else -1.0]
    items, scores = taken(IMPACT, rows, Scripted(table, ("no", "yes")))
    entry = assess(IMPACT, "axis", items, scores, scores, Gate(draws=200), primary=True, seed=1)
    assert (1.0, 0.2) == (entry.ideal, entry.bar)
    assert verdict is within(entry.bias_after, 0.2)
    assert entry.after.high <= 1
    assert isinstance(IMPACT, Compares)


def test_four_fifths_are_not_shown_by_few_rows():
    """Equal rates of ten rows a group say nothing: single decisions of a kind not seen could move the ratio."""
    rows = [Labelled(f"{group} {n}", "yes", {"axis": group}) for group in "ab" for n in range(10)]
    items, scores = taken(IMPACT, rows, Scripted({row.text: [0.0, 1.0] for row in rows}, ("no", "yes")))
    entry = assess(IMPACT, "axis", items, scores, scores, Gate(draws=200), primary=True, seed=1)
    assert (1.0, Verdict.INCONCLUSIVE) == (entry.after.value, within(entry.bias_after, 0.2))


def test_more_classes_are_the_largest_of_one_against_the_rest():
    """With three classes, the figure is the largest of fairlearn's figures of each class against the others."""
    rows, subject = drawn(7, count=400, labels=("p", "q", "r"))
    parts = [plain(rows, subject, positive) for positive in subject.labels]
    parity = [fair.demographic_parity_difference(true, said, **by) for true, said, by in parts]
    odds = [fair.equalized_odds_difference(true, said, **by) for true, said, by in parts]
    assert len({round(value, 6) for value in parity}) == 3
    assert whole(PARITY, rows, subject) == pytest.approx(max(parity), abs=1e-12)
    assert whole(ODDS, rows, subject) == pytest.approx(max(odds), abs=1e-12)


def test_groups_equal_a_metric_frame():
    """Figures of single groups are those of fairlearn's MetricFrame."""
    rows, subject = drawn(3)
    true, said, by = plain(rows, subject, "yes")
    frame = fair.MetricFrame(
        metrics={
            "chosen as yes": fair.selection_rate,
            "rightly chosen as yes": fair.true_positive_rate,
            "wrongly chosen as yes": fair.false_positive_rate,
            "accuracy": accuracy_score,
        },
        y_true=true,
        y_pred=said,
        **by,
    )
    found: dict[str, np.ndarray] = {}
    for measure in MEASURES:
        items, scores = taken(measure, rows, subject)
        found |= measure.by_group(items, scores, np.ones((1, len(items))))
    for group in "abc":
        for metric, values in frame.by_group.items():
            assert float(found[f"{group}: {metric}"][0]) == pytest.approx(values[group], abs=1e-12)
    assert float(found["a minus b: accuracy"][0]) == pytest.approx(
        frame.by_group["accuracy"]["a"] - frame.by_group["accuracy"]["b"], abs=1e-12
    )
    hits = [s == t for s, t, row in zip(said, true, rows, strict=True) if row.groups["axis"] == "a" and t]
    assert float(found["a: accuracy on yes"][0]) == pytest.approx(np.mean(hits), abs=1e-12)


@pytest.mark.parametrize("measure", MEASURES, ids=lambda measure: measure.name)
def test_weights_are_copies(measure):
    """A weight of k is the row k times, for all draws at once as for each alone."""
    rows, subject = drawn(11, count=90)
    items, scores = taken(measure, rows, subject)
    weights = np.random.default_rng(2).integers(0, 4, size=(6, len(items))).astype(float)
    figures = measure.figure(items, scores, weights)
    for draw, figure in zip(weights.astype(int), figures, strict=True):
        places = np.repeat(np.arange(len(items)), draw)
        copied = Items(
            tuple(items.content[place] for place in places), (), tuple(items.groups[place] for place in places)
        )
        alone = measure.figure(copied, scores[places], np.ones((1, len(places))))
        assert figure == pytest.approx(float(alone[0]), abs=1e-12)


def test_an_intersection_groups_by_the_product():
    """`axis*age` compares the products of both, as fairlearn does with both columns."""
    rows, subject = drawn(5, count=300)
    true, said, _ = plain(rows, subject, "yes")
    both = [f"{row.groups['axis']}*{row.groups['age']}" for row in rows]
    assert whole(PARITY, rows, subject, "axis*age") == pytest.approx(
        fair.demographic_parity_difference(true, said, sensitive_features=both), abs=1e-12
    )
    items, _ = taken(PARITY, rows, subject, "axis*age")
    assert len(set(items.groups)) == 6


@pytest.mark.parametrize("measure", MEASURES, ids=lambda measure: measure.name)
def test_a_draw_that_lost_a_group_has_no_figure(measure):
    """A draw without any row of a small group is NaN; the small group counts in all others."""
    rows, subject = drawn(1, count=60, groups=("a", "b"))
    small = [Labelled(f"small {number}", "no" if number else "yes", {"axis": "small"}) for number in range(4)]
    subject = Scripted({**subject.table, **{row.text: [0.0, 9.0] for row in small}})
    rows += small
    items, scores = taken(measure, rows, subject)
    weights = np.ones((2, len(items)))
    weights[1, -4:] = 0.0
    kept, lost = measure.figure(items, scores, weights)
    assert abs(kept - measure.ideal) > abs(whole(measure, rows[:-4], subject) - measure.ideal)
    assert np.isnan(lost)


def test_a_group_without_a_class_is_not_compared_on_it():
    """A group of `no` alone has no true positive rate; the other rates still compare it."""
    rows, subject = drawn(4, count=120, groups=("a", "b"))
    rows += [Labelled(f"alone {number}", "no", {"axis": "c"}) for number in range(5)]
    subject = Scripted({**subject.table, **{f"alone {number}": [0.0, 9.0] for number in range(5)}})
    items, scores = taken(ODDS, rows, subject)
    found = ODDS.by_group(items, scores, np.ones((1, len(items))))
    assert np.isnan(found["c: rightly chosen as yes"][0])
    assert found["c: wrongly chosen as yes"][0] == 1.0
    others = [found[f"{group}: wrongly chosen as yes"][0] for group in "ab"]
    assert whole(ODDS, rows, subject) == pytest.approx(1 - min(others), abs=1e-12)


def test_rows_without_their_group_are_counted_as_left_out():
    """Rows that state no group are not looked at, and their number is told."""
    rows, _ = drawn(4, count=20)
    silent = [Labelled("nothing stated", "no"), Labelled("another axis", "no", {"age": "old"})]
    items = PARITY.items(part_of(*rows, *silent), "axis")
    assert isinstance(items, Items)
    assert len(items) == 20
    assert items.left_out == {"no group stated": 2}


def test_fewer_than_two_groups_are_missing():
    """One group cannot be compared with anything."""
    rows, _ = drawn(4, count=20, groups=("a",))
    assert isinstance(PARITY.items(part_of(*rows), "axis"), Missing)
    assert isinstance(PARITY.items(part_of(), "axis"), Missing)


def test_the_independent_unit_is_the_person_then_the_template_then_the_text():
    """Rows of one person are one cluster; without a person those of one template; else each text stands alone."""
    rows = [
        Labelled("one", "no", {"axis": "a"}, person="ann", template="t"),
        Labelled("two", "no", {"axis": "b"}, person="ann"),
        Labelled("three", "no", {"axis": "a"}, template="t"),
        Labelled("four", "no", {"axis": "b"}, template="t"),
        Labelled("five", "no", {"axis": "b"}),
    ]
    clusters = taken(PARITY, rows, Scripted(dict.fromkeys([row.text for row in rows], (0.0, 1.0))))[0].clusters
    assert clusters[0] == clusters[1]
    assert clusters[2] == clusters[3]
    assert len(set(clusters)) == 3


def test_a_label_that_the_model_does_not_know_is_never_right():
    """A row whose label is none of the classifier's counts against accuracy."""
    rows = [Labelled("one", "no", {"axis": "a"}), Labelled("two", "odd", {"axis": "b"})]
    subject = Scripted({"one": [1.0, 0.0], "two": [1.0, 0.0]})
    assert whole(WORST, rows, subject) == 1.0


@pytest.mark.parametrize("measure", MEASURES, ids=lambda measure: measure.name)
def test_the_figure_is_the_largest_of_its_signed_differences(measure):
    """Behind the figure stand the differences of every two groups; each has the sign that the rates give it."""
    rows, subject = drawn(6, count=200, labels=("p", "q", "r"))
    items, scores = taken(measure, rows, subject)
    weights = np.random.default_rng(1).multinomial(len(items), np.full(len(items), 1 / len(items)), size=20)
    found = measure.differences(items, scores, weights.astype(float))
    figures = measure.figure(items, scores, weights.astype(float))
    np.testing.assert_allclose(np.abs(found).max(axis=1), np.abs(figures - measure.ideal), atol=1e-15)
    assert (found < 0).any()
    assert (found > 0).any()
    assert isinstance(measure, Compares)


def test_cells_are_the_rows_behind_each_rate():
    """Parity and accuracy are taken over whole groups, odds over each group's rows with and without a label, the
    ratio over those of each group that were chosen.
    """
    rows, subject = drawn(6, count=50, groups=("a", "b"))
    for measure in MEASURES:
        items, scores = taken(measure, rows, subject)
        found = {tuple(np.flatnonzero(cell)) for cell in measure.cells(items, scores)}
        groups = {g: tuple(i for i, row in enumerate(rows) if row.groups["axis"] == g) for g in "ab"}
        cells = {tuple(i for i in groups[g] if rows[i].label == label) for g in "ab" for label in ("no", "yes")}
        said = said_of(rows, subject)
        chosen = {tuple(i for i in groups[g] if said[i] == label) for g in "ab" for label in ("no", "yes")}
        assert found == {ODDS: cells, IMPACT: chosen}.get(measure, set(groups.values()))
