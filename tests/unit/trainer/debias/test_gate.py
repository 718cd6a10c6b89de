# SPDX-License-Identifier: Apache-2.0
"""Every rule of the gate, every verdict of each, and what holds of all of them."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cloister.gate import MIN_CLUSTERS, Gate
from cloister_workers.messages import GateRule, Verdict
from cloister_workers.trainer.debias.gate import Wanted, judge, within
from cloister_workers.trainer.debias.results import Cause, Estimate, Judgement, Kept, Measured

PASS, FAIL, OPEN = Verdict.PASS, Verdict.FAIL, Verdict.INCONCLUSIVE
BAR = 0.25
WANTED = Wanted((("pair_preference", "gender"),), ("accuracy",))


def good(**change: object) -> Measured:
    """A primary measure that passes everything: from 1.0 to 0.05."""
    entry = Measured(
        measure="pair_preference",
        axis="gender",
        before=Estimate(1.0, 0.9, 1.1),
        after=Estimate(0.05, -0.1, 0.2),
        bias_before=Estimate(1.0, 0.9, 1.1),
        bias_after=Estimate(0.05, 0.0, 0.2),
        change=Estimate(-0.95, -1.1, -0.8),
        p=0.001,
        p_holm=0.002,
        items=500,
        clusters=100,
        primary=True,
        ideal=0.0,
        bar=BAR,
        signed=True,
        extrinsic=True,
    )
    return replace(entry, **change)  # type: ignore[arg-type]


def other(low: float, high: float, **change: object) -> Measured:
    """A measure that is not primary, with the interval of its worsening."""
    return good(axis="age", primary=False, change=Estimate((low + high) / 2, low, high), **change)


def kept(low: float = -0.005, high: float = 0.008, **change: object) -> Kept:
    level = Estimate(0.9, 0.88, 0.92)
    entry = Kept("accuracy", level, level, Estimate((low + high) / 2, low, high), 4000, 4000, 0.01)
    return replace(entry, **change)  # type: ignore[arg-type]


def judged(*measured: Measured, losses: tuple[Kept, ...] = (kept(),), **change: object) -> Judgement:
    options = {"wanted": WANTED, "gate": Gate(), "weights_changed": True, **change}
    return judge(measured, losses, options["wanted"], options["gate"], weights_changed=options["weights_changed"])  # type: ignore[arg-type]


def said(judgement: Judgement, rule: GateRule) -> list[Verdict]:
    return [finding.verdict for finding in judgement.findings if finding.rule is rule]


def test_a_good_job_passes() -> None:
    """With every interval inside its bar each rule has its finding, and all of them pass."""
    judgement = judged(good(), other(-0.1, 0.2))
    assert PASS is judgement.verdict
    assert set(GateRule) == {finding.rule for finding in judgement.findings}
    assert {PASS} == {finding.verdict for finding in judgement.findings}


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(0.0, 0.1, PASS), (0.0, 0.0999, PASS), (0.0, 0.1001, OPEN), (0.1, 0.2, OPEN), (0.1001, 0.2, FAIL)],
)
def test_limits_against_a_bar(low: float, high: float, verdict: Verdict) -> None:
    """Equality with the bar is inside it on either end."""
    assert verdict is within(Estimate(0.05, low, high), 0.1)


@pytest.mark.parametrize("ends", [(-math.inf, math.inf), (math.nan, math.nan), (0.0, math.inf)])
def test_what_has_no_limits_is_open(ends: tuple[float, float]) -> None:
    """Infinite or missing limits neither pass nor fail."""
    assert OPEN is within(Estimate(math.nan, *ends), 0.1)


@pytest.mark.parametrize(
    ("low", "high", "p", "verdict"),
    [
        (-0.3, -0.01, 0.05, PASS),
        (-0.3, -0.01, 0.051, OPEN),
        (-0.3, 0.0, 0.001, OPEN),
        (-0.3, 0.1, 0.001, OPEN),
        (0.0, 0.3, 0.001, OPEN),
        (0.01, 0.3, 0.001, FAIL),
    ],
)
def test_improvement(low: float, high: float, p: float, verdict: Verdict) -> None:
    """The interval of the change must lie below 0 and p after Holm be at most alpha; above 0 fails."""
    judgement = judged(good(change=Estimate(low, low, high), p_holm=p))
    assert [verdict] == said(judgement, GateRule.IMPROVEMENT)
    assert verdict is judgement.verdict


def test_holm_counts_and_not_p() -> None:
    """A p that does not survive the adjustment does not show an improvement."""
    assert [OPEN] == said(judged(good(p=0.03, p_holm=0.06)), GateRule.IMPROVEMENT)


def test_what_was_fair_cannot_improve() -> None:
    """A model inside its bars before and after is inconclusive, not a success."""
    fair = Estimate(0.02, -0.1, 0.14)
    bias = Estimate(0.02, 0.0, 0.14)
    entry = good(before=fair, after=fair, bias_before=bias, bias_after=bias, change=Estimate(0, -0.2, 0.2), p_holm=1.0)
    judgement = judged(entry)
    assert ([PASS], [OPEN]) == (said(judgement, GateRule.LEVEL), said(judgement, GateRule.IMPROVEMENT))
    assert OPEN is judgement.verdict


@pytest.mark.parametrize(("low", "high", "verdict"), [(0, BAR, PASS), (0, 0.26, OPEN), (0.26, 0.4, FAIL)])
def test_level(low: float, high: float, verdict: Verdict) -> None:
    """The bias that is left must be shown to lie within the bar."""
    judgement = judged(good(bias_after=Estimate(low, low, high)))
    assert [verdict] == said(judgement, GateRule.LEVEL)
    assert verdict is judgement.verdict


def test_no_bar_no_level() -> None:
    """A primary measure without a bar leaves the job open."""
    judgement = judged(good(bar=None))
    assert ([OPEN], OPEN) == (said(judgement, GateRule.LEVEL), judgement.verdict)


@pytest.mark.parametrize(
    ("before", "low", "high", "verdict"),
    [
        (1.0, -BAR, 0.9, PASS),
        (1.0, -0.26, 0.9, OPEN),
        (1.0, -0.9, -0.26, FAIL),
        (1.0, 0.3, 0.9, PASS),
        (-1.0, -0.9, BAR, PASS),
        (-1.0, -0.9, 0.26, OPEN),
        (-1.0, 0.26, 0.9, FAIL),
        (-1.0, -0.9, -0.3, PASS),
    ],
)
@pytest.mark.parametrize("ideal", [0.0, 50.0])
def test_over_correction(before: float, low: float, high: float, verdict: Verdict, ideal: float) -> None:
    """On the side away from where the bias was the interval must end within the bar, wherever the ideal lies."""
    first = Estimate(ideal + before, ideal + before - 0.1, ideal + before + 0.1)
    after = Estimate(ideal + (low + high) / 2, ideal + low, ideal + high)
    assert [verdict] == said(judged(good(before=first, after=after, ideal=ideal)), GateRule.OVER_CORRECTION)


def test_over_correction_without_a_side() -> None:
    """Where the figure was ideal to begin with either side counts, and an unsigned measure has no sides."""
    entry = good(before=Estimate(0, -0.1, 0.1), bias_after=Estimate(0.2, 0.0, 0.3))
    assert [OPEN] == said(judged(entry), GateRule.OVER_CORRECTION)
    assert [] == said(judged(good(signed=False)), GateRule.OVER_CORRECTION)


@pytest.mark.parametrize(
    ("low", "high", "harm", "verdict"),
    [
        (-0.1, BAR, 1.0, PASS),
        (-0.1, 0.26, 1.0, OPEN),
        (0.26, 0.4, 1.0, FAIL),
        (-0.1, 0.2, 0.5, OPEN),
        (-0.2, 0.0, 0.0, PASS),
        (-0.2, 0.001, 0.0, OPEN),
    ],
)
def test_harm_elsewhere(low: float, high: float, harm: float, verdict: Verdict) -> None:
    """No other measure or axis may worsen by more than the policy's share of its bar."""
    judgement = judged(good(), other(low, high), gate=Gate(harm=harm))
    assert ([verdict], verdict) == (said(judgement, GateRule.HARM), judgement.verdict)


def test_a_measure_without_a_bar_is_shown_and_not_gated() -> None:
    """However badly it fares, a measure that is not primary and has no bar changes nothing."""
    judgement = judged(good(), other(5.0, 6.0, bar=None, clusters=2))
    assert (PASS, []) == (judgement.verdict, said(judgement, GateRule.HARM))


@pytest.mark.parametrize(("low", "high", "verdict"), [(-1, 0.01, PASS), (-1, 0.011, OPEN), (0.011, 0.1, FAIL)])
def test_utility(low: float, high: float, verdict: Verdict) -> None:
    """The loss must be shown to lie within the margin."""
    judgement = judged(good(), losses=(kept(low, high),))
    assert ([verdict], verdict) == (said(judgement, GateRule.UTILITY), judgement.verdict)


@pytest.mark.parametrize("losses", [(), (kept(margin=None),)])
def test_no_utility_no_pass(losses: tuple[Kept, ...]) -> None:
    """Without any utility that has a margin nobody knows what was lost."""
    judgement = judged(good(), losses=losses, wanted=Wanted(WANTED.primary, ()))
    assert ([OPEN], OPEN) == (said(judgement, GateRule.UTILITY), judgement.verdict)


def test_weights_must_change() -> None:
    """Measuring the same weights twice fails, whatever the figures say."""
    judgement = judged(good(), weights_changed=False)
    assert ([FAIL], FAIL) == (said(judgement, GateRule.CHANGED), judgement.verdict)


def test_insides_alone_are_no_evidence() -> None:
    """Without a barred measure on the task a job is open, unless the policy says otherwise; one elsewhere does."""
    inside = good(extrinsic=False)
    assert OPEN is judged(inside).verdict
    assert PASS is judged(inside, gate=Gate(extrinsic=False)).verdict
    assert PASS is judged(inside, other(-0.1, 0.1)).verdict
    assert OPEN is judged(inside, other(-0.1, 0.1, bar=None)).verdict


def test_what_was_wanted_must_be_there() -> None:
    """A primary measure or utility of the specification that could not be taken leaves the job open, by name."""
    wanted = Wanted((*WANTED.primary, ("flip_rate", "age")), ("accuracy", "perplexity"))
    judgement = judged(good(), wanted=wanted)
    missing = [(f.measure, f.axis) for f in judgement.findings if f.rule is GateRule.EVIDENCE and f.verdict is OPEN]
    assert [("flip_rate", "age"), ("perplexity", "")] == missing
    assert OPEN is judgement.verdict


def test_a_guard_that_was_asked_for_must_be_there() -> None:
    """A measure that is not primary and could not be taken leaves the job open; one that was taken does not."""
    wanted = replace(WANTED, others=(("flip_rate", "age"),))
    judgement = judged(good(), wanted=wanted)
    missing = [(f.measure, f.axis) for f in judgement.findings if f.rule is GateRule.EVIDENCE and f.verdict is OPEN]
    assert ([("flip_rate", "age")], OPEN) == (missing, judgement.verdict)
    assert PASS is judged(good(), other(-0.1, 0.1, measure="flip_rate"), wanted=wanted).verdict


def test_nothing_wanted_is_no_evidence() -> None:
    """Without a single primary measure there is nothing that could pass."""
    assert OPEN is judged(other(-0.1, 0.1), wanted=Wanted((), ("accuracy",))).verdict


@pytest.mark.parametrize("where", ["primary", "other", "utility"])
def test_few_clusters_are_no_evidence(where: str) -> None:
    """With fewer independent units than an interval needs, whatever is gated on them is open."""
    for count, verdict in ((MIN_CLUSTERS, PASS), (MIN_CLUSTERS - 1, OPEN)):
        few = {"clusters": count}
        judgement = judged(
            good(**few if where == "primary" else {}),
            other(-0.1, 0.1, **few if where == "other" else {}),
            losses=(kept(**few if where == "utility" else {}),),
        )
        assert verdict is judgement.verdict


def test_fail_outweighs_open() -> None:
    """One failure fails the job, even where other rules are open."""
    judgement = judged(good(bias_after=Estimate(0.3, 0.26, 0.4), change=Estimate(-0.1, -0.3, 0.1)))
    assert {FAIL, OPEN} <= {finding.verdict for finding in judgement.findings}
    assert FAIL is judgement.verdict


def test_findings_say_what_they_compared() -> None:
    """Each finding of a measure carries its name, axis, interval and bar."""
    entry, loss = good(), kept()
    found = {f.rule: f for f in judged(entry, losses=(loss,)).findings}
    level, utility = found[GateRule.LEVEL], found[GateRule.UTILITY]
    assert ("pair_preference", "gender", entry.bias_after, BAR) == (
        level.measure,
        level.axis,
        level.estimate,
        level.bar,
    )
    assert ("accuracy", loss.loss, 0.01) == (utility.measure, utility.estimate, utility.bar)
    assert (entry.change, 0.0) == (found[GateRule.IMPROVEMENT].estimate, found[GateRule.IMPROVEMENT].bar)


NOTHING = Estimate(math.nan, -math.inf, math.inf)
ENDLESS = Estimate(-0.5, -math.inf, math.inf)


@pytest.mark.parametrize(
    ("judgement", "rule", "cause"),
    [
        (judged(good(change=Estimate(-0.1, -0.2, 0.1))), GateRule.IMPROVEMENT, Cause.OVER_BAR),
        (judged(good(p_holm=0.06)), GateRule.IMPROVEMENT, Cause.CHANCE),
        (judged(good(change=ENDLESS)), GateRule.IMPROVEMENT, Cause.NO_INTERVAL),
        (judged(good(bias_after=Estimate(0.1, 0.0, 0.3))), GateRule.LEVEL, Cause.OVER_BAR),
        (judged(good(bias_after=NOTHING)), GateRule.LEVEL, Cause.NO_FIGURE),
        (judged(good(bar=None)), GateRule.LEVEL, Cause.NO_BAR),
        (judged(good(), other(-0.1, 0.26)), GateRule.HARM, Cause.OVER_BAR),
        (judged(good(), losses=(kept(0, 0.02),)), GateRule.UTILITY, Cause.OVER_BAR),
        (judged(good(), losses=()), GateRule.UTILITY, Cause.NO_UTILITY),
        (judged(good(extrinsic=False)), GateRule.EVIDENCE, Cause.NO_TASK),
        (judged(good(), wanted=Wanted((), ("accuracy",))), GateRule.EVIDENCE, Cause.NO_PRIMARY),
        (judged(good(), wanted=Wanted(WANTED.primary, ("perplexity",))), GateRule.EVIDENCE, Cause.NOT_TAKEN),
        (judged(good(clusters=MIN_CLUSTERS - 1)), GateRule.EVIDENCE, Cause.FEW_UNITS),
    ],
)
def test_an_open_rule_says_why(judgement: Judgement, rule: GateRule, cause: Cause) -> None:
    """Each way to leave a rule open has a cause of its own."""
    assert cause in {finding.cause for finding in judgement.findings if finding.rule is rule}


# ---------------------------------------------------------------- what holds for every outcome
ENDS = st.tuples(st.floats(-0.5, 0.5), st.floats(0, 0.3), st.floats(0, 0.3))
WIDER = st.tuples(st.floats(0, 1), st.floats(0, 1))


def around(ends: tuple[float, float, float], more: tuple[float, float] = (0, 0)) -> Estimate:
    value, below, above = ends
    return Estimate(value, value - below - more[0], value + above + more[1])


@settings(deadline=None, max_examples=300)
@given(
    st.lists(ENDS, min_size=5, max_size=5), st.lists(WIDER, min_size=5, max_size=5), st.floats(0, 0.1), st.floats(0, 1)
)
def test_less_knowledge_never_helps(
    ends: list[tuple[float, float, float]], more: list[tuple[float, float]], p: float, rise: float
) -> None:
    """Widening any interval or raising p never turns a verdict into PASS, nor an open rule into a failed one, and
    what is open has a cause while nothing else has.
    """

    def outcome(wider: list[tuple[float, float]], p_holm: float) -> Judgement:
        after, bias, change, harm, loss = (around(e, m) for e, m in zip(ends, wider, strict=True))
        entry = good(after=after, bias_after=bias, change=change, p_holm=p_holm)
        return judged(entry, replace(other(0, 0), change=harm), losses=(replace(kept(), loss=loss),))

    sharp, dull = outcome([(0, 0)] * 5, p), outcome(more, min(1.0, p + rise))
    for before, after in zip(sharp.findings, dull.findings, strict=True):
        assert after.verdict in (before.verdict, OPEN)
        assert (after.cause is not None) is (after.verdict is OPEN)
    assert dull.verdict is not PASS or sharp.verdict is PASS


@settings(deadline=None, max_examples=200)
@given(ENDS, st.floats(0.001, 0.5), st.floats(0.001, 0.5))
def test_a_tighter_bar_never_helps(ends: tuple[float, float, float], first: float, second: float) -> None:
    """What passes a bar passes every higher one, and what fails one fails every lower one."""
    assume(first < second)
    tight, loose = within(around(ends), first), within(around(ends), second)
    assert tight is not PASS or loose is PASS
    assert loose is not FAIL or tight is FAIL


@settings(deadline=None, max_examples=100)
@given(st.lists(ENDS, min_size=3, max_size=3), st.booleans())
def test_mirror_images_are_judged_alike(ends: list[tuple[float, float, float]], signed: bool) -> None:
    """Which of two groups is favoured makes no difference: turning all signs round leaves every finding's verdict."""
    before, after, change = (around(e) for e in ends)

    def turned(estimate: Estimate) -> Estimate:
        return Estimate(-estimate.value, -estimate.high, -estimate.low)

    entry = good(before=before, after=after, change=change, signed=signed)
    mirrored = replace(entry, before=turned(before), after=turned(after))
    one, two = (judged(each).findings for each in (entry, mirrored))
    assert [finding.verdict for finding in one] == [finding.verdict for finding in two]
