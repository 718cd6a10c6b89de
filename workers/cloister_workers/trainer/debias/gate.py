# SPDX-License-Identifier: Apache-2.0
"""PASS, FAIL or INCONCLUSIVE: a pure function of what was measured and of the bars that were signed beforehand.

    improvement      each primary measure: the change of |bias| lies below 0 with its whole interval, and p after Holm
                     is at most alpha; all above 0 fails
    level            each primary measure: the upper limit of |bias| afterwards is within the bar; the lower one above
                     it fails
    over_correction  each primary measure with a direction: the same for the side away from where the bias was
    harm             each other measure with a bar: the upper limit of its worsening is within `harm` bars
                     (level, over_correction and harm hold for every part of a mean of signed figures as well: the
                     opposite biases of two tests must not cancel. Each part is held to the bar at the full error: all
                     of them have to pass, so one that lies beyond its bar passes in at most alpha / 2 of cases however
                     many there are, an intersection-union test after Berger 1982, doi:10.1080/00401706.1982.10487790;
                     Holm would only lower the power. Improvement is that of the mean.)
    utility          each utility with a margin: the upper limit of its loss is within the margin
    evidence         the wanted measures were taken, one with a bar on the model's task, with enough independent units
    changed          the weights that were measured afterwards are not those from before

Whatever an interval leaves open is INCONCLUSIVE, and so is what cannot be told (no bar, no interval). A model without
bias cannot be shown to improve. One FAIL fails the whole, one INCONCLUSIVE leaves it open.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cloister.gate import MIN_CLUSTERS, Gate
from cloister_workers.messages import GateRule, Verdict
from cloister_workers.trainer.debias.results import Cause, Estimate, Finding, Judgement, Kept, Measured, PartEstimate


@dataclass(frozen=True)
class Wanted:
    """What the signed specification asks for: nothing of it may be missing silently."""

    primary: tuple[tuple[str, str], ...]
    """Primary measures, each with its axis."""
    utilities: tuple[str, ...]
    others: tuple[tuple[str, str], ...] = ()
    """Further measures with a bar, each with its axis, that guard against harm."""


def judge(
    measured: Sequence[Measured], kept: Sequence[Kept], wanted: Wanted, gate: Gate, *, weights_changed: bool
) -> Judgement:
    """Apply every rule. `measured` has been through `with_holm`."""
    findings = [Finding(GateRule.CHANGED, Verdict.PASS if weights_changed else Verdict.FAIL)]
    findings += _evidence(measured, kept, wanted, gate)
    for entry in measured:
        findings += _primary(entry, gate) if entry.primary else _other(entry, gate)
    findings += _utility(kept)
    verdicts = {finding.verdict for finding in findings}
    worst = next(verdict for verdict in (Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.PASS) if verdict in verdicts)
    return Judgement(worst, tuple(findings))


def within(estimate: Estimate, bar: float) -> Verdict:
    """Whether a figure is shown to be at most `bar`: its upper limit is; shown not to be: its lower one is above."""
    if estimate.high <= bar:
        return Verdict.PASS
    return Verdict.FAIL if estimate.low > bar else Verdict.INCONCLUSIVE


def _evidence(measured: Sequence[Measured], kept: Sequence[Kept], wanted: Wanted, gate: Gate) -> Iterator[Finding]:
    taken = {(entry.measure, entry.axis, entry.primary) for entry in measured}
    utilities = {entry.utility for entry in kept}
    on_task = not gate.extrinsic or any(entry.extrinsic and entry.bar is not None for entry in measured)
    cause = None if wanted.primary and on_task else Cause.NO_TASK if wanted.primary else Cause.NO_PRIMARY
    yield Finding(GateRule.EVIDENCE, Verdict.INCONCLUSIVE if cause else Verdict.PASS, cause=cause)
    for names, primary in ((wanted.primary, True), (wanted.others, False)):
        for name, axis in names:
            if (name, axis, primary) not in taken:
                yield _open(Cause.NOT_TAKEN, name, axis)
    for name in wanted.utilities:
        if name not in utilities:
            yield _open(Cause.NOT_TAKEN, name)
    yield from _few(measured, kept)


def _few(measured: Sequence[Measured], kept: Sequence[Kept]) -> Iterator[Finding]:
    """What is gated on fewer independent units than an interval needs."""
    for entry in measured:
        for figure in _figures(entry):
            if (entry.primary or entry.bar is not None) and figure.clusters < MIN_CLUSTERS:
                yield _open(Cause.FEW_UNITS, entry.measure, entry.axis, _part(figure), figure.clusters)
    for loss in kept:
        if loss.margin is not None and loss.clusters < MIN_CLUSTERS:
            yield _open(Cause.FEW_UNITS, loss.utility, clusters=loss.clusters)


def _primary(entry: Measured, gate: Gate) -> Iterator[Finding]:
    yield _of(GateRule.IMPROVEMENT, _improvement(entry, gate.alpha), entry, entry.change, 0.0)
    if entry.bar is None:
        yield _of(GateRule.LEVEL, Verdict.INCONCLUSIVE, entry, entry.bias_after, None)
        return
    for figure in _figures(entry):
        yield _of(GateRule.LEVEL, within(figure.bias_after, entry.bar), entry, figure.bias_after, entry.bar, figure)
        if entry.signed:
            beyond = _reversed(figure, entry.ideal)
            yield _of(GateRule.OVER_CORRECTION, within(beyond, entry.bar), entry, beyond, entry.bar, figure)


def _figures(entry: Measured) -> tuple[Measured | PartEstimate, ...]:
    return (entry, *entry.parts)


def _improvement(entry: Measured, alpha: float) -> Verdict:
    if entry.change.low > 0:
        return Verdict.FAIL
    return Verdict.PASS if entry.change.high < 0 and entry.p_holm <= alpha else Verdict.INCONCLUSIVE


def _reversed(figure: Measured | PartEstimate, ideal: float) -> Estimate:
    """How far the figure afterwards lies beyond the ideal, seen from where it was; both sides where it was ideal."""
    side = figure.before.value - ideal
    if side == 0 or math.isnan(side):
        return figure.bias_after
    low, high = figure.after.low - ideal, figure.after.high - ideal
    beyond = (-high, -low) if side > 0 else (low, high)
    value = (ideal - figure.after.value) if side > 0 else (figure.after.value - ideal)
    return Estimate(max(value, 0.0), max(beyond[0], 0.0), max(beyond[1], 0.0))


def _other(entry: Measured, gate: Gate) -> Iterator[Finding]:
    if entry.bar is not None:
        bar = gate.harm * entry.bar
        for figure in _figures(entry):
            yield _of(GateRule.HARM, within(figure.change, bar), entry, figure.change, bar, figure)


def _utility(kept: Sequence[Kept]) -> Iterator[Finding]:
    gated = [entry for entry in kept if entry.margin is not None]
    if not gated:
        yield Finding(GateRule.UTILITY, Verdict.INCONCLUSIVE, cause=Cause.NO_UTILITY)
    for entry in gated:
        margin = math.nan if entry.margin is None else entry.margin
        verdict = within(entry.loss, margin)
        cause = _cause(verdict, entry.loss, margin)
        yield Finding(GateRule.UTILITY, verdict, entry.utility, "", entry.loss, margin, cause=cause)


def _open(cause: Cause, name: str, axis: str = "", part: str = "", clusters: int | None = None) -> Finding:
    """Evidence that is missing."""
    return Finding(GateRule.EVIDENCE, Verdict.INCONCLUSIVE, name, axis, part=part, cause=cause, clusters=clusters)


def _of(
    rule: GateRule,
    verdict: Verdict,
    entry: Measured,
    estimate: Estimate,
    bar: float | None,
    figure: Measured | PartEstimate | None = None,
) -> Finding:
    cause = _cause(verdict, estimate, bar)
    return Finding(rule, verdict, entry.measure, entry.axis, estimate, bar, _part(figure), cause)


def _part(figure: Measured | PartEstimate | None) -> str:
    return figure.part if isinstance(figure, PartEstimate) else ""


def _cause(verdict: Verdict, estimate: Estimate, bar: float | None) -> Cause | None:
    """Why a figure that was held to a bar is open."""
    if verdict is not Verdict.INCONCLUSIVE:
        return None
    if bar is None:
        return Cause.NO_BAR
    if not math.isfinite(estimate.value):
        return Cause.NO_FIGURE
    if not (math.isfinite(estimate.low) and math.isfinite(estimate.high)):
        return Cause.NO_INTERVAL
    return Cause.CHANCE if estimate.high < bar else Cause.OVER_BAR
