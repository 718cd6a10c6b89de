# SPDX-License-Identifier: Apache-2.0
"""What a job measured and judged, as the gate, the report and its numeric twin share it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from cloister_workers.messages import GateRule, Verdict


@dataclass(frozen=True)
class Estimate:
    """A figure with its two-sided interval at the gate's confidence."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class GroupEstimate:
    """One group's figure before and after."""

    group: str
    items: int
    """Those that it was taken from."""
    before: Estimate
    after: Estimate
    scale: str = ""
    """Its own, which need not be the measure's."""
    ideal: float | None = None
    """None where the groups are to be alike; see `measure.SubFigure`."""
    signed: bool = False


@dataclass(frozen=True)
class PartEstimate:
    """One of the signed figures behind a measure's mean, before and after: see `measure.HasParts`."""

    part: str
    before: Estimate
    after: Estimate
    bias_after: Estimate
    """Of |figure - ideal|."""
    change: Estimate
    """Paired, as that of `Measured`."""
    clusters: int
    """Independent units behind it."""


@dataclass(frozen=True)
class Permuted:
    """Two-sided p of a permutation test before and after: see `measure.Permutes`."""

    test: str
    before: float
    after: float
    items: int
    """Those of the test."""


@dataclass(frozen=True)
class Measured:
    """One measure of bias on one axis, before and after, on the same items."""

    measure: str
    axis: str
    before: Estimate
    after: Estimate
    bias_before: Estimate
    """Of |figure - ideal|."""
    bias_after: Estimate
    change: Estimate
    """Paired, of |after - ideal| - |before - ideal|; below 0 is better."""
    p: float
    """Two-sided p of no change, before Holm."""
    p_holm: float
    """Adjusted over axes and primary measures; equal to p where the measure is not primary."""
    items: int
    clusters: int
    primary: bool
    ideal: float
    bar: float | None
    groups: tuple[GroupEstimate, ...] = ()
    signed: bool = False
    """Whether the figure tells a direction, so that the gate looks for over-correction."""
    extrinsic: bool = False
    """Whether it was taken on the model's task."""
    parts: tuple[PartEstimate, ...] = ()
    """Where the figure is a mean of two signed ones or more."""
    permuted: tuple[Permuted, ...] = ()
    """Where the measure has a permutation test; the gate does not look at them."""
    overlap: int | None = None
    """Items that name a word or name that was at hand to mitigate with; None where the measure does not say what it
    reads."""


@dataclass(frozen=True)
class Kept:
    """One measure of utility before and after."""

    utility: str
    before: Estimate
    after: Estimate
    loss: Estimate
    """Paired; the gate bounds its upper end by the margin."""
    items: int
    clusters: int
    margin: float | None


class Cause(StrEnum):
    """Why a finding is open."""

    OVER_BAR = "over_bar"
    """The interval reaches over the bar; for an improvement, over no change."""
    CHANCE = "chance"
    """The interval excludes no change, but p after Holm is above alpha."""
    NO_INTERVAL = "no_interval"
    NO_FIGURE = "no_figure"
    """The items have nothing to compute it from, for example where every answer is `unknown`."""
    FEW_UNITS = "few_units"
    NOT_TAKEN = "not_taken"
    """Asked for and not measured; `NotMeasured` has the reason."""
    NO_BAR = "no_bar"
    NO_PRIMARY = "no_primary"
    NO_TASK = "no_task"
    """No measure with a bar was taken on the model's task."""
    NO_UTILITY = "no_utility"

    @property
    def more_items_may_settle(self) -> bool:
        """Whether more items of the same kind could close the finding."""
        return self in {Cause.OVER_BAR, Cause.CHANCE, Cause.NO_INTERVAL, Cause.FEW_UNITS}


@dataclass(frozen=True)
class Finding:
    """One rule of the gate on one measure."""

    rule: GateRule
    verdict: Verdict
    measure: str = ""
    """Measure or utility; empty for a rule about the whole job."""
    axis: str = ""
    estimate: Estimate | None = None
    bar: float | None = None
    part: str = ""
    """Which of the measure's parts; empty for the measure as a whole."""
    cause: Cause | None = None
    """Of an open finding; None of the others."""
    clusters: int | None = None
    """Independent units, where there are too few of them."""


@dataclass(frozen=True)
class Judgement:
    """The gate's word: FAIL if any finding fails, else INCONCLUSIVE if any is open, else PASS."""

    verdict: Verdict
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class NotMeasured:
    """A measure, utility or axis that could not be taken, and why."""

    name: str
    axis: str
    why: str


@dataclass(frozen=True)
class Run:
    """Measures and judgement of one seed."""

    seed: int
    measured: tuple[Measured, ...]
    kept: tuple[Kept, ...]
    judgement: Judgement


@dataclass(frozen=True)
class Outcome:
    """Everything that the report shows. `runs[0]` is the version that may be released; others show robustness."""

    job: Mapping[str, str]
    """What was asked: model, task, mitigation, axes, purpose, digests; strings for the page."""
    runs: tuple[Run, ...]
    not_measured: tuple[NotMeasured, ...] = ()
    notes: Mapping[str, float] = field(default_factory=dict)
    """From the mitigation."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """Rows and items by part."""
