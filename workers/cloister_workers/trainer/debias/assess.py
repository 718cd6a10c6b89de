# SPDX-License-Identifier: Apache-2.0
"""From scores before and after to figures with intervals: what one measure or utility shows, without judging it.

Bias is |figure - ideal|. Its interval is the folded one of the figure: from 0 where that holds the ideal. Three traps
are seen to, each by making an interval wider:

    few events     0/1 scores get exact limits as well, and no share is surer than unseen clusters allow
                   (`exact.unseen`), however many events were seen: with that floor the upper limit does not fall when
                   the first biased answers appear, and a better model never does worse than a nearly as good one
    kinks          |x| of a noisy x is too large near 0, so a worsening from there looks too small. Where the figure
                   before cannot be told from the ideal, the worsening is bounded by how far the figure moved at all:
                   |a| - |b| <= |a - b|, and for the largest of several differences likewise
    no change      p of the change is the larger of the bootstrap's and that of an exact test in which before and
                   after of whole clusters change places; the latter holds for any number of clusters
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cloister.gate import Gate
from cloister_workers.trainer.debias.kinds import FloatArray, Scale
from cloister_workers.trainer.debias.measure import Compares, HasParts, Items, Measure, Permutes, Utility
from cloister_workers.trainer.debias.results import Estimate, GroupEstimate, Kept, Measured, PartEstimate, Permuted
from cloister_workers.trainer.debias.statistics.bootstrap import Clusters, Sample, drawing
from cloister_workers.trainer.debias.statistics.exact import mcnemar, share_limits, sign_flip, unseen
from cloister_workers.trainer.debias.statistics.holm import holm
from cloister_workers.trainer.debias.subfigures import NOT_AT_HAND, subfigures

_DOUBT = 0.1
"""Share of alpha at which a figure counts as away from its ideal: were it alpha itself, a figure that strays by chance
would pass for a bias, and the next measurement for an improvement, in that many cases on top."""


@dataclass(frozen=True)
class _Case:
    """One measure with its scores; `unit` is what a share of 1 is on its scale."""

    measure: Measure
    items: Items
    before: FloatArray
    after: FloatArray
    clusters: Clusters
    unit: float


def assess(
    measure: Measure,
    axis: str,
    items: Items,
    before: FloatArray,
    after: FloatArray,
    gate: Gate,
    primary: bool,  # noqa: FBT001 - a fact about the measure
    seed: int,
) -> Measured:
    """Figures, intervals and p of one measure on one axis, from scores [n, k] of the same items in the same order.

    `p_holm` is p until `with_holm` has seen all measures of the job.
    """
    case = _Case(measure, items, before, after, Clusters.of(items.clusters), _unit(measure.scale))
    columns = _Columns.of(case)
    first, second, moved, *others = drawing(columns, case.clusters, gate.draws, seed)
    behind, groups = others[: 3 * len(columns.parts)], others[3 * len(columns.parts) :]
    hidden = _hidden(case, gate.alpha)
    estimates = [_figure(case, sample, scores, gate.alpha) for sample, scores in ((first, before), (second, after))]
    biases = [_folded(estimate, measure.ideal) for estimate in estimates]
    if isinstance(measure, Compares):
        biases = [replace(bias, high=max(bias.high, bias.value + hidden)) for bias in biases]
    changed = _changed(first, second, measure.ideal)
    p = _p(case, changed, gate.draws, seed)
    return Measured(
        measure=measure.name,
        axis=axis,
        before=estimates[0],
        after=estimates[1],
        bias_before=biases[0],
        bias_after=biases[1],
        change=_change(case, changed, first, moved, gate.alpha),
        p=p,
        p_holm=p,
        items=len(items),
        clusters=case.clusters.count,
        primary=primary,
        ideal=measure.ideal,
        bar=gate.bars.get(measure.name),
        groups=_groups(case, columns.names, groups, gate.alpha),
        signed=measure.signed,
        extrinsic=measure.extrinsic,
        parts=_parts(case, columns.parts, behind, gate.alpha),
        permuted=_permuted(case, seed),
        overlap=sum(items.overlap) if items.overlap else None,
    )


def assess_utility(
    utility: Utility, items: Items, before: FloatArray, after: FloatArray, gate: Gate, seed: int
) -> Kept:
    """Levels and paired loss of one utility; levels are NaN where only the loss means something."""
    clusters = Clusters.of(items.clusters)

    def columns(weights: FloatArray) -> FloatArray:
        levels = [utility.level(items, scores, weights) for scores in (before, after)]
        return np.stack([*levels, utility.loss(items, before, after, weights)], axis=1)

    first, second, lost = (sample.interval(gate.alpha) for sample in drawing(columns, clusters, gate.draws, seed))
    hidden = unseen(clusters.effective(), gate.alpha) * _unit(utility.scale) if utility.binary else 0.0
    return Kept(
        utility=utility.name,
        before=first,
        after=second,
        loss=_around(lost, hidden),
        items=len(items),
        clusters=clusters.count,
        margin=gate.margins.get(utility.name),
    )


def with_holm(measured: Sequence[Measured]) -> tuple[Measured, ...]:
    """The same with `p_holm` adjusted over all primary measures and axes."""
    adjusted = iter(holm([entry.p for entry in measured if entry.primary]))
    return tuple(replace(entry, p_holm=next(adjusted)) if entry.primary else entry for entry in measured)


@dataclass(frozen=True)
class _Columns:
    """Figure before, after, how far it moved; the same for each part; then each group before and after."""

    case: _Case
    parts: tuple[str, ...]
    names: tuple[str, ...]
    taken: FloatArray
    """Which differences of a measure that compares can be taken at all: 0/1 [m]."""

    @classmethod
    def of(cls, case: _Case) -> _Columns:
        ones = np.ones((1, len(case.items)))
        measure = case.measure
        parts = tuple(measure.parts(case.items, case.before, ones)) if isinstance(measure, HasParts) else ()
        names = tuple(_by_group(case, case.before, ones))
        return cls(case, parts if len(parts) > 1 else (), names, _taken(case))

    def __call__(self, weights: FloatArray) -> FloatArray:
        case = self.case
        both = [case.measure.figure(case.items, scores, weights) for scores in (case.before, case.after)]
        found = [*both, self._moved(both, weights), *self._parts(weights)]
        groups = [_by_group(case, scores, weights) for scores in (case.before, case.after)]
        lost = np.full(len(weights), np.nan)
        for name in self.names:
            found += [group.get(name, lost) for group in groups]
        return np.stack(found, axis=1)

    def _parts(self, weights: FloatArray) -> Iterator[FloatArray]:
        case = self.case
        if isinstance(case.measure, HasParts):
            first, second = (case.measure.parts(case.items, scores, weights) for scores in (case.before, case.after))
            for part in self.parts:
                yield from (first[part], second[part], self._away((first[part], second[part])))

    def _moved(self, both: Sequence[FloatArray], weights: FloatArray) -> FloatArray:
        case = self.case
        if isinstance(case.measure, Compares):
            first, second = (case.measure.differences(case.items, s, weights) for s in (case.before, case.after))
            moved: FloatArray = np.where(self.taken > 0, np.abs(second - first), 0.0).max(axis=1)
            return moved
        return self._away(both)

    def _away(self, both: Sequence[FloatArray]) -> FloatArray:
        # Without a direction nothing is known of the way it went: it may have come from the ideal itself.
        measure = self.case.measure
        start: FloatArray = both[0] if measure.signed else np.full(len(both[0]), measure.ideal)
        return abs(both[1] - start)


def _by_group(case: _Case, scores: FloatArray, weights: FloatArray) -> Mapping[str, FloatArray]:
    """The measure's own groups, and the items that name no word at hand where there are both kinds."""
    found = dict(case.measure.by_group(case.items, scores, weights))
    apart = ~np.array(case.items.overlap, dtype=bool)
    if apart.any() and not apart.all():
        found[NOT_AT_HAND] = case.measure.figure(case.items, scores, weights * apart)
    return found


def _taken(case: _Case) -> FloatArray:
    if not isinstance(case.measure, Compares):
        return np.zeros(0)
    ones = np.ones((1, len(case.items)))
    whole = [case.measure.differences(case.items, scores, ones)[0] for scores in (case.before, case.after)]
    return np.where(np.isfinite(whole[0] + whole[1]), 1.0, 0.0)


def _unit(scale: Scale) -> float:
    return 100.0 if scale is Scale.POINTS else 1.0


def _hidden(case: _Case, alpha: float) -> float:
    """By how much clusters of a kind that was never drawn could move the figure; 0 where scores are no rates."""
    if isinstance(case.measure, Compares):
        both = (case.measure.cells(case.items, scores) for scores in (case.before, case.after))
        cells = [cell for found in both for cell in found if cell.any()]
        return case.unit * max((unseen(case.clusters.effective(cell), alpha) for cell in cells), default=1.0)
    return case.unit * unseen(case.clusters.effective(), alpha) if case.measure.binary else 0.0


def _figure(case: _Case, sample: Sample, scores: FloatArray, alpha: float) -> Estimate:
    estimate = sample.interval(alpha)
    ideal = case.measure.ideal
    if case.measure.binary:
        low, high = share_limits(scores[:, 0], case.clusters, alpha)
        low, high = min(estimate.low, low * case.unit), max(estimate.high, high * case.unit)
        return Estimate(estimate.value, max(low, 0.0), min(high, case.unit))
    if case.measure.scale in (Scale.SHARE, Scale.POINTS):
        estimate = _as_few(case, estimate, alpha)
    if case.measure.signed:
        return estimate
    # Without a direction it stays on its side of the ideal, which the basic interval does not know.
    if estimate.value > ideal or (estimate.value == ideal and not (sample.draws < ideal).any()):
        return replace(estimate, low=max(estimate.low, ideal))
    return replace(estimate, high=min(estimate.high, ideal))


def _as_few(case: _Case, estimate: Estimate, alpha: float) -> Estimate:
    """The interval, not closer than clusters of a kind that was never drawn leave it, were all of them at an end of the
    scale. Its upper end rises with the value; an interval of draws alone is narrowest where few answers move them.
    """
    measure, hidden = case.measure, unseen(case.clusters.effective(), alpha)
    bottom = -case.unit if measure.signed and measure.ideal == 0 else 0.0  # a difference goes both ways
    low = estimate.value - hidden * (estimate.value - bottom)
    high = estimate.value + hidden * (case.unit - estimate.value)
    return replace(estimate, low=min(estimate.low, low), high=max(estimate.high, high))


def _folded(estimate: Estimate, ideal: float) -> Estimate:
    """The interval of |x - ideal| from that of x."""
    ends = abs(estimate.low - ideal), abs(estimate.high - ideal)
    low = 0.0 if estimate.low <= ideal <= estimate.high else min(ends)
    return Estimate(abs(estimate.value - ideal), low, max(ends))


def _around(estimate: Estimate, least: float) -> Estimate:
    """The interval, reaching at least `least` to each side of the value."""
    return replace(
        estimate, low=min(estimate.low, estimate.value - least), high=max(estimate.high, estimate.value + least)
    )


def _change(case: _Case, changed: Sample, first: Sample, moved: Sample, alpha: float) -> Estimate:
    """The change of |bias|: within how far the figure moved, and all of that where it may have been ideal before."""
    measure, change, far = case.measure, changed.interval(alpha), moved.interval(alpha).high
    if measure.signed or isinstance(measure, Compares):
        change = replace(change, low=max(change.low, -far), high=min(change.high, far))
    start = first.interval(alpha * _DOUBT)
    if (measure.signed or not measure.binary) and start.low <= measure.ideal <= start.high:
        change = replace(change, low=min(change.low, -far), high=max(change.high, far))
    if measure.binary and not measure.signed:
        return _discordant(case, change, alpha)
    return _around(change, _hidden(case, alpha))


def _discordant(case: _Case, change: Estimate, alpha: float) -> Estimate:
    """The change of a rate, not closer than exact limits of the items that rose, or fell, leave it."""
    steps = case.after[:, 0] - case.before[:, 0]
    rose, fell = (np.where(steps * way > 0, 1.0, 0.0) for way in (1, -1))
    most = [share_limits(turned, case.clusters, alpha)[1] for turned in (rose, fell)]
    high, low = case.unit * (most[0] - float(fell.mean())), case.unit * (float(rose.mean()) - most[1])
    return replace(change, low=min(change.low, low), high=max(change.high, high))


def _p(case: _Case, changed: Sample, draws: int, seed: int) -> float:
    return max(changed.p_of_zero(), _exchanged(case, draws, seed))


def _exchanged(case: _Case, draws: int, seed: int) -> float:
    """Chance of such a change when before and after of whole clusters change places at random."""
    single = case.clusters.count == len(case.items)
    if case.measure.binary and not case.measure.signed and single:
        steps = case.after[:, 0] - case.before[:, 0]
        return mcnemar(int(np.count_nonzero(steps < 0)), int(np.count_nonzero(steps > 0)))
    items = Items(case.items.content * 2, case.items.clusters * 2, case.items.groups * 2)
    scores = np.concatenate([case.before, case.after])

    def change(signs: FloatArray) -> FloatArray:
        kept = (1 + signs[:, case.clusters.index]) / 2
        ends = (np.concatenate([1 - kept, kept], axis=1), np.concatenate([kept, 1 - kept], axis=1))
        after, before = (np.abs(case.measure.figure(items, scores, w) - case.measure.ideal) for w in ends)
        return after - before

    return sign_flip(change, case.clusters.count, draws, seed, len(items))


def _changed(first: Sample, second: Sample, ideal: float) -> Sample:
    """The change of |bias|, draw by draw."""
    return first.with_(lambda b, a: np.abs(a - ideal) - np.abs(b - ideal), second)


def _parts(case: _Case, names: Sequence[str], samples: Sequence[Sample], alpha: float) -> tuple[PartEstimate, ...]:
    if not isinstance(case.measure, HasParts):
        return ()
    ideal, members, found = case.measure.ideal, case.measure.members(case.items), []
    for place, name in enumerate(names):
        first, second, moved = samples[3 * place : 3 * place + 3]
        after = second.interval(alpha)
        change = _change(case, _changed(first, second, ideal), first, moved, alpha)
        units = int(np.count_nonzero(case.clusters.sums(members[name])))
        found.append(PartEstimate(name, first.interval(alpha), after, _folded(after, ideal), change, units))
    return tuple(found)


def _permuted(case: _Case, seed: int) -> tuple[Permuted, ...]:
    if not isinstance(case.measure, Permutes):
        return ()
    before, after = (case.measure.permutation(case.items, scores, seed) for scores in (case.before, case.after))
    parts = case.measure.members(case.items) if isinstance(case.measure, HasParts) else {}
    held = {test: int(np.count_nonzero(parts[test])) if test in parts else len(case.items) for test in before}
    return tuple(Permuted(test, p, after[test], held[test]) for test, p in before.items())


def _groups(case: _Case, names: Sequence[str], samples: Sequence[Sample], alpha: float) -> tuple[GroupEstimate, ...]:
    told, found = subfigures(case.measure, case.items, case.before, names), []
    for place, name in enumerate(names):
        before, after = (sample.interval(alpha) for sample in samples[2 * place : 2 * place + 2])
        about, held = told[name], int(np.count_nonzero(told[name].items))
        found.append(GroupEstimate(name, held, before, after, about.scale.value, about.ideal, about.signed))
    return tuple(found)
