# SPDX-License-Identifier: Apache-2.0
"""The numeric twin: what leaves the trainer about a job's figures, by index and without a name."""

from __future__ import annotations

import math
from collections.abc import Sequence

from cloister_workers.messages import Figure, Finding, Judged, Metrics
from cloister_workers.trainer.debias.panel import Panel, Scores, utility_level
from cloister_workers.trainer.debias.partition import Partition
from cloister_workers.trainer.debias.results import Estimate, GroupEstimate, Measured, Run
from cloister_workers.trainer.debias.spec import DebiasSpec
from cloister_workers.trainer.session import Session
from cloister_workers.words import FigureKind, FigureName, MetricName, Verdict

_VERDICTS = {Verdict.PASS: 1.0, Verdict.INCONCLUSIVE: 0.0, Verdict.FAIL: -1.0}
_METRICS = {
    "accuracy": MetricName.EVAL_ACCURACY,
    "macro_f1": MetricName.EVAL_MACRO_F1,
    "perplexity": MetricName.EVAL_PERPLEXITY,
}
_PHASES = (
    (FigureName.BEFORE, FigureName.BEFORE_LOW, FigureName.BEFORE_HIGH),
    (FigureName.AFTER, FigureName.AFTER_LOW, FigureName.AFTER_HIGH),
    (FigureName.CHANGE, FigureName.CHANGE_LOW, FigureName.CHANGE_HIGH),
)
Values = dict[FigureName, float]


def headline_metrics(panel: Panel, scores: Scores, verdict: Verdict | None = None) -> Metrics:
    """What the job's events and the signed result show beside the figures."""
    levels = utility_level(panel, scores)
    found = {_METRICS[name]: value for name, value in levels.items() if name in _METRICS and math.isfinite(value)}
    return found if verdict is None else {**found, MetricName.DEBIAS_VERDICT: _VERDICTS[verdict]}


def tell_run(session: Session, spec: DebiasSpec, number: int, run: Run) -> None:
    """Tell figures, findings and the verdict of one run."""
    names = Names(spec)
    for measured in run.measured:
        _tell_measured(session, names, number, measured)
    for kept in run.kept:
        values = _values((kept.before, kept.after, kept.loss), bar=kept.margin)
        session.tell(
            Figure(
                run=number,
                kind=FigureKind.UTILITY,
                index=names.utility(kept.utility),
                axis=0,
                group=0,
                items=kept.items,
                clusters=kept.clusters,
                values=values,
            )
        )
    for finding in run.judgement.findings:
        kind, index = names.find(finding.measure)
        axis = names.axis(finding.axis)
        session.tell(Finding(run=number, rule=finding.rule, verdict=finding.verdict, kind=kind, index=index, axis=axis))
    session.tell(Judged(run=number, verdict=run.judgement.verdict))


def tell_rows(session: Session, parts: Partition) -> None:
    """Tell how many rows there were to fit on and to choose by, and of how many words of the test part kept others."""
    used = (parts.fit.rows, parts.validation.rows)
    session.tell(
        Figure(
            run=0,
            kind=FigureKind.JOB,
            index=0,
            axis=0,
            group=0,
            items=sum(len(rows) for material in used for rows in material.rows.values()),
            clusters=0,
            values={FigureName.LEFT_OUT: float(parts.left_out), FigureName.CROSSING: float(parts.crossing)},
        )
    )


class Names:
    """Places of names in the lists of the signed spec."""

    def __init__(self, spec: DebiasSpec) -> None:
        self._measures = [measure.name for measure in spec.measures]
        self._utilities = [utility.name for utility in spec.utilities]
        self._axes = list(spec.measured_axes)

    def measure(self, name: str) -> int:
        return self._measures.index(name)

    def utility(self, name: str) -> int:
        return self._utilities.index(name)

    def axis(self, name: str) -> int:
        return self._axes.index(name) if name else 0

    def find(self, name: str) -> tuple[FigureKind, int]:
        """The kind and place of a measure or utility; the job as a whole for no name."""
        if name in self._measures:
            return FigureKind.MEASURE, self.measure(name)
        if name in self._utilities:
            return FigureKind.UTILITY, self.utility(name)
        return FigureKind.JOB, 0


def _tell_measured(session: Session, names: Names, number: int, measured: Measured) -> None:
    index, axis = names.measure(measured.measure), names.axis(measured.axis)

    def figure(group: int, items: int, values: Values) -> Figure:
        return Figure(
            run=number,
            kind=FigureKind.MEASURE,
            index=index,
            axis=axis,
            group=group,
            items=items,
            clusters=measured.clusters,
            values=values,
        )

    values = _values((measured.before, measured.after, measured.change), measured.bar)
    pair = {FigureName.P: measured.p} | ({FigureName.P_HOLM: measured.p_holm} if measured.primary else {})
    values |= {name: value for name, value in pair.items() if math.isfinite(value)}
    if measured.overlap is not None:
        values[FigureName.OVERLAP] = float(measured.overlap)
    session.tell(figure(0, measured.items, values))
    groups: Sequence[GroupEstimate] = measured.groups
    for place, group in enumerate(groups, start=1):
        session.tell(figure(place, group.items, _values((group.before, group.after), None)))
    for place, test in enumerate(measured.permuted, start=len(groups) + 1):
        # A group of the report's own numbering whose figures are p before and after.
        session.tell(figure(place, test.items, {FigureName.BEFORE: test.before, FigureName.AFTER: test.after}))


def _values(estimates: tuple[Estimate, ...], bar: float | None) -> Values:
    """Numbers that are finite; an interval that could not be had is left out."""
    found: Values = {}
    for (value, low, high), estimate in zip(_PHASES, estimates, strict=False):
        triple = ((value, estimate.value), (low, estimate.low), (high, estimate.high))
        found |= {name: number for name, number in triple if math.isfinite(number)}
    if bar is not None:
        found[FigureName.BAR] = bar
    return found
