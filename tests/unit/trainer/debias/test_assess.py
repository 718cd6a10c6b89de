# SPDX-License-Identifier: Apache-2.0
"""Figures with intervals from made-up scores; the measures are those of `benchmarks/debias_gate.py`."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import made_up_scores
from cloister.gate import Gate
from cloister_workers.messages import GateRule, Verdict
from cloister_workers.trainer.debias.assess import assess, assess_utility, with_holm
from cloister_workers.trainer.debias.gate import Wanted, judge
from cloister_workers.trainer.debias.kinds import FloatArray, Scale
from cloister_workers.trainer.debias.measure import Items
from cloister_workers.trainer.debias.results import Kept, Measured
from cloister_workers.trainer.debias.statistics.bootstrap import Clusters
from cloister_workers.trainer.debias.statistics.exact import clopper_pearson, mcnemar, share_limits, unseen

_PATH = Path(__file__).resolve().parents[4] / "benchmarks/debias_gate.py"
_SPEC = importlib.util.spec_from_file_location("debias_gate_benchmark", _PATH)
assert _SPEC is not None
assert _SPEC.loader is not None
bench = importlib.util.module_from_spec(_SPEC)
sys.modules[_SPEC.name] = bench  # dataclasses look their module up
_SPEC.loader.exec_module(bench)

GATE = Gate(draws=400)
FLIP, GAP, DELTA, CROWS, RIGHT = (
    made_up_scores.FLIP,
    made_up_scores.GAP,
    made_up_scores.DELTA,
    made_up_scores.CROWS,
    made_up_scores.RIGHT,
)


def column(*values: float) -> FloatArray:
    return np.array(values, dtype=np.float64)[:, None]


def events(count: int, items: int) -> FloatArray:
    return column(*np.repeat([1.0, 0.0], [count, items - count]))


def items_of(count: int, size: int = 1, groups: int = 1) -> Items:
    return made_up_scores.Shape(count, size, groups).items()


def measured(measure: object, items: Items, before: FloatArray, after: FloatArray, gate: Gate = GATE) -> Measured:
    return assess(measure, "gender", items, before, after, gate, primary=True, seed=1)  # type: ignore[arg-type]


def kept(utility: object, items: Items, before: FloatArray, after: FloatArray) -> Kept:
    return assess_utility(utility, items, before, after, GATE, 1)  # type: ignore[arg-type]


def test_no_flip_among_few_is_not_within_the_bar() -> None:
    """0 of n flips reaches up to the exact limit: 182 texts cannot show 2 %, 183 can."""
    for count, inside in ((182, False), (183, True)):
        entry = measured(FLIP, items_of(count), events(20, count), events(0, count))
        assert unseen(count, 0.05) == pytest.approx(entry.bias_after.high)
        assert inside is (entry.bias_after.high <= 0.02)
        assert (0.0, 0.0) == (entry.after.value, entry.after.low)


def test_binary_limits_hold_the_exact_ones() -> None:
    """A flip rate's interval reaches at least as far as Clopper-Pearson, clustered or not."""
    for clusters, size in ((200, 1), (40, 5)):
        items, scores = items_of(clusters, size), events(17, 200)
        low, high = share_limits(scores[:, 0], Clusters.of(items.clusters), 0.05)
        entry = measured(FLIP, items, scores, scores)
        assert entry.before.low <= low < high <= entry.before.high
    assert clopper_pearson(17, 200, 0.05)[1] <= high


def test_points_are_points() -> None:
    """A share on a scale of 100 has its limits, its ideal and its bias there too."""
    entry = measured(CROWS, items_of(400), events(260, 400), events(200, 400))
    assert (65.0, 50.0, 15.0, 0.0) == (
        entry.before.value,
        entry.after.value,
        entry.bias_before.value,
        entry.bias_after.value,
    )
    low, high = clopper_pearson(200, 400, 0.05)
    assert entry.after.low <= 100 * low < 100 * high <= entry.after.high
    assert (0.0, True) == (entry.bias_after.low, entry.bias_after.high >= 100 * high - 50)


def test_bias_is_folded_at_the_ideal() -> None:
    """The interval of the bias starts at 0 where the figure's holds the ideal, else at the nearer end."""
    random = np.random.default_rng(4)
    for shift, straddles in ((0.0, True), (1.0, False), (-1.0, False)):
        entry = measured(DELTA, items_of(100), column(*random.normal(size=100)), column(*random.normal(shift, 1, 100)))
        ends = sorted([abs(entry.after.low), abs(entry.after.high)])
        assert straddles is (entry.after.low <= 0 <= entry.after.high)
        assert (0.0 if straddles else ends[0], ends[1]) == (entry.bias_after.low, entry.bias_after.high)
        assert abs(entry.after.value) == entry.bias_after.value


def test_nothing_done_shows_nothing() -> None:
    """Equal scores give p 1 and a change of 0, as sure as unseen items allow for rates, and quite sure for means."""
    scores = column(*np.random.default_rng(4).normal(0.5, 1, size=100))
    entry = measured(DELTA, items_of(100), scores, scores)
    assert (1.0, 0.0, 0.0, 0.0) == (entry.p, entry.change.value, entry.change.low, entry.change.high)
    flips = measured(FLIP, items_of(100), events(9, 100), events(9, 100))
    assert (1.0, -unseen(100, 0.05), unseen(100, 0.05)) == pytest.approx((flips.p, flips.change.low, flips.change.high))


def test_change_is_paired() -> None:
    """Items that all move alike show a small improvement that two separate samples would not."""
    scores = np.random.default_rng(4).normal(1, 2, size=200)
    entry = measured(DELTA, items_of(200), column(*scores), column(*(scores - 0.2)))
    assert -0.2 == pytest.approx(entry.change.low) == pytest.approx(entry.change.high)
    assert entry.p <= 2 / 401
    assert entry.before.low < entry.after.value < entry.before.high


def test_improvement_from_the_ideal_cannot_be_shown() -> None:
    """Where the figure before may be ideal, moving it is no improvement: the interval reaches as far the other way."""
    scores = np.random.default_rng(6).normal(0, 1, size=100)
    scores += 0.15 - scores.mean()
    entry = measured(DELTA, items_of(100), column(*scores), column(*(scores - 0.15)))
    assert entry.before.low < 0 < entry.before.high
    assert (-0.15, 0.15) == pytest.approx((entry.change.low, entry.change.high))


def test_a_gap_that_grows_from_nothing_is_bounded_by_how_far_rates_moved() -> None:
    """From a gap of 0 the worsening reaches at least as far as the differences between groups moved."""
    items = items_of(800, groups=2)
    group = np.array(items.groups) == "g1"
    before = np.tile([1.0, 1.0, 0.0, 0.0], 200)
    after = before.copy()
    after[np.flatnonzero(group & (before == 0))[:40]] = 1.0
    entry = measured(GAP, items, before[:, None], after[:, None])
    assert (0.0, 0.1) == pytest.approx((entry.before.value, entry.change.value))
    se = np.sqrt(0.1 * 0.9 / 400)
    assert entry.change.high >= 0.1 + 1.8 * se


def test_a_perfect_classifier_on_few_rows_is_not_fair_yet() -> None:
    """Without any difference in small groups the gap reaches as far as rows of a kind not seen could move it."""
    items = items_of(40, groups=2)
    entry = measured(GAP, items, np.ones((40, 1)), np.ones((40, 1)))
    assert (0.0, unseen(20, 0.05)) == pytest.approx((entry.bias_after.low, entry.bias_after.high))


def test_a_rate_that_no_draw_moves_is_not_certain() -> None:
    """A share that is ideal in every item reaches as far as unseen units could move it; a mean of nats does not."""
    shares, nats = made_up_scores.Mean("winobias_type1", signed=True), DELTA
    zeros = np.zeros((50, 1))
    assert unseen(25, 0.05) == pytest.approx(measured(shares, items_of(25, 2), zeros, zeros).bias_after.high)
    assert 0.0 == measured(nats, items_of(25, 2), zeros, zeros).bias_after.high


def test_single_flips_are_tested_exactly() -> None:
    """Independent 0/1 items have McNemar's p, unless the bootstrap's is larger."""
    before, after = np.zeros(60), np.zeros(60)
    before[:9], after[8:11] = 1.0, 1.0
    assert mcnemar(8, 2) == pytest.approx(measured(FLIP, items_of(60), before[:, None], after[:, None]).p)


def test_few_clusters_are_tested_exactly() -> None:
    """Six templates that all improve have p 2 / 2^6, however many items they hold and however alike these are."""
    random = np.random.default_rng(5)
    scores = random.normal(1, 0.1, size=60)
    entry = measured(DELTA, items_of(6, 10), column(*scores), column(*(scores - 0.5)))
    assert 2 / 64 == entry.p


def test_a_change_of_a_rate_is_no_surer_than_exact_limits() -> None:
    """From no flip to 8 of 400 the worsening reaches up to the exact limit of 8, and the improvement back likewise."""
    none, some = events(0, 400), events(8, 400)
    worse, better = (
        measured(FLIP, items_of(400), first, second).change for first, second in ((none, some), (some, none))
    )
    assert worse.high >= clopper_pearson(8, 400, 0.05)[1]
    assert better.low <= -clopper_pearson(8, 400, 0.05)[1]
    assert unseen(400, 0.05) - 0.02 <= better.high < 0


def test_facts_are_handed_on() -> None:
    """What the gate needs of measure and policy stands in the result."""
    entry = measured(CROWS, items_of(30, 2), events(40, 60), events(30, 60))
    assert ("crows_pll_nangia", "gender", 60, 30, True) == (
        entry.measure,
        entry.axis,
        entry.items,
        entry.clusters,
        entry.primary,
    )
    assert (50.0, 5.0, True, True) == (entry.ideal, entry.bar, entry.signed, entry.extrinsic)
    assert measured(CROWS, items_of(30, 2), events(40, 60), events(30, 60), Gate(draws=50, bars={})).bar is None


class Grouped(made_up_scores.Gap):
    """Shows the rate of each group; one has no rate afterwards."""

    def by_group(self, items: Items, scores: FloatArray, weights: FloatArray) -> dict[str, FloatArray]:
        rates = self._rates(items, scores, weights)
        lost = np.full(len(weights), np.nan)
        return {
            "g0": rates[:, 0],
            "g1": rates[:, 1] if scores[0, 0] else lost,
            "g0 minus g1": rates[:, 0] - rates[:, 1],
        }


def test_groups_are_shown_and_none_is_dropped() -> None:
    """Each group has its figure, interval and number of items; one without a figure stays, with no interval."""
    items = items_of(40, groups=2)
    before, after = events(20, 40), events(20, 40)[::-1]
    groups = measured(Grouped("demographic_parity"), items, before, after).groups
    assert [("g0", 20), ("g1", 20), ("g0 minus g1", 40)] == [(entry.group, entry.items) for entry in groups]
    assert groups[0].before.low < groups[0].before.value == 0.5 < groups[0].before.high
    assert np.isnan(groups[1].after.value)
    assert np.isinf([groups[1].after.low, groups[1].after.high]).all()


def test_a_part_of_few_units_is_no_evidence() -> None:
    """Each part needs as many independent units as a whole figure: 19 of them leave the job open, by name."""
    for count, named in ((40, []), (38, ["g0", "g1"])):
        items = items_of(count, groups=2)
        scores = np.random.default_rng(3).normal(0.9, 0.005, size=count)
        tests = made_up_scores.Parted("association", signed=True, scale=Scale.COSINE)
        entry = measured(tests, items, column(*scores), column(*(scores - 0.9)))
        assert [count // 2] * 2 == [part.clusters for part in entry.parts]
        wanted = Wanted((("association", "gender"),), ("accuracy",))
        judgement = judge([entry], [bench.KEPT], wanted, GATE, weights_changed=True)
        few = [f.part for f in judgement.findings if f.rule is GateRule.EVIDENCE and f.verdict is not Verdict.PASS]
        assert named == few


def test_the_seed_decides() -> None:
    """The same seed gives the same figures to the last bit."""
    random = np.random.default_rng(4)
    before, after = (column(*random.normal(size=50)) for _ in range(2))
    first, second = (measured(DELTA, items_of(50), before, after) for _ in range(2))
    assert first == second
    assert first != assess(DELTA, "gender", items_of(50), before, after, GATE, primary=True, seed=2)


def test_holm_goes_over_primary_measures_alone() -> None:
    """Primary p-values are adjusted together; the others keep theirs."""
    first = measured(FLIP, items_of(60), events(9, 60), events(3, 60))
    entries = with_holm(
        [replace(first, p=0.01), replace(first, p=0.02, p_holm=0.02, primary=False), replace(first, p=0.04)]
    )
    assert (0.02, 0.02, 0.04) == tuple(entry.p_holm for entry in entries)


def test_utility_is_paired_and_never_surer_than_unseen_texts_allow() -> None:
    """Accuracy that did not move at all on 100 texts may still have lost what 100 texts cannot show."""
    loss = kept(RIGHT, items_of(100), events(90, 100), events(90, 100)).loss
    assert (0.0, unseen(100, 0.05)) == pytest.approx((loss.value, loss.high))
    many = kept(RIGHT, items_of(1000), events(900, 1000), events(900, 1000))
    assert (many.loss.high <= 0.01, 0.01) == (True, many.margin)


def test_utility_levels_and_loss() -> None:
    """Levels before and after are there with intervals, and the loss is before minus after."""
    entry = kept(RIGHT, items_of(400), events(360, 400), events(352, 400))
    assert (0.9, 0.88, 0.02) == pytest.approx((entry.before.value, entry.after.value, entry.loss.value))
    assert entry.loss.low < 0.02 < entry.loss.high
    assert entry.before.low < 0.9 < entry.before.high


class Continuous(made_up_scores.Right):
    binary = False


def test_a_continuous_utility_that_did_not_move_is_known() -> None:
    """Where scores are no hits and misses, equal ones are equal."""
    scores = column(*np.random.default_rng(4).normal(size=100))
    loss = kept(Continuous("perplexity", scale=Scale.RATIO, binary=False), items_of(100), scores, scores).loss
    assert (0.0, 0.0, 0.0) == (loss.value, loss.low, loss.high)


def test_random_perturbations_do_not_pass() -> None:
    """Of 100 replays of stored scores with random steps at most 14 pass, for rates, means, shares and gaps."""
    found = bench.replay(Gate(draws=100), np.random.Generator(np.random.PCG64(3)), 100)
    assert {"flip_rate", "pair_preference", "crows_pll_nangia", "demographic_parity"} == set(found)
    assert max(found.values()) <= 14


def test_a_real_effect_passes_and_a_sham_does_not() -> None:
    """The whole gate on one drawing each: an effect passes, the same numbers without it do not."""
    shape = made_up_scores.Shape(300)
    for after, verdict in ((0.0, Verdict.PASS), (1.0, Verdict.FAIL)):
        setting = bench.Setting("", DELTA, shape, made_up_scores.deltas(shape, 1.0, after, 0.9))
        assert verdict is bench.verdict(setting, GATE, np.random.Generator(np.random.PCG64(3)))


def test_opposite_parts_do_not_cancel() -> None:
    """Two tests that end at +0.365 and -0.376 have a mean near 0, and neither they nor the job pass."""
    items = items_of(80, groups=2)
    noise = np.random.default_rng(3).normal(0, 0.005, size=80)
    first = np.array(items.groups) == "g0"
    before, after = np.where(first, 0.9, 0.2) + noise, np.where(first, 0.365, -0.376) + noise
    tests = made_up_scores.Parted("association", signed=True, scale=Scale.COSINE)
    entry = measured(tests, items, column(*before), column(*after))
    assert (0.02, True) == (entry.bar, entry.bias_after.high < 0.02)
    assert ["g0", "g1"] == [part.part for part in entry.parts]
    assert [0.365, -0.376] == pytest.approx([part.after.value for part in entry.parts], abs=0.01)
    wanted = Wanted((("association", "gender"),), ("accuracy",))
    judgement = judge([entry], [bench.KEPT], wanted, GATE, weights_changed=True)
    assert Verdict.FAIL is judgement.verdict
    found = {(finding.rule, finding.part): finding.verdict for finding in judgement.findings}
    assert (Verdict.PASS, Verdict.PASS) == (found[GateRule.LEVEL, ""], found[GateRule.OVER_CORRECTION, ""])
    assert {Verdict.FAIL} == {found[GateRule.LEVEL, part] for part in ("g0", "g1")}
    assert Verdict.FAIL is found[GateRule.OVER_CORRECTION, "g1"]
    worse = judge([replace(entry, primary=False)], [bench.KEPT], wanted, GATE, weights_changed=True)
    harm = {finding.part: finding.verdict for finding in worse.findings if finding.rule is GateRule.HARM}
    assert {"": Verdict.PASS, "g0": Verdict.PASS, "g1": Verdict.FAIL} == harm
