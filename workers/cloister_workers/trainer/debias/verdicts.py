# SPDX-License-Identifier: Apache-2.0
"""From the scores of one run to its figures and the gate's word."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from cloister.gate import Gate
from cloister_workers.trainer.debias.assess import assess, assess_utility, with_holm
from cloister_workers.trainer.debias.gate import Wanted, judge
from cloister_workers.trainer.debias.panel import Panel, Scores
from cloister_workers.trainer.debias.results import Run

Place = tuple[str, str]
"""A measure and an axis."""


def judge_run(panel: Panel, before: Scores, after: Scores, gate: Gate, *, seed: int, weights_changed: bool) -> Run:
    """Assess every measure and utility of the panel, then judge. `seed` draws the bootstrap and names the run."""
    measured = with_holm(
        [
            assess(entry.measure, entry.axis, entry.items, first, second, gate, entry.primary, seed)
            for entry, first, second in zip(panel.measures, before.measures, after.measures, strict=True)
        ]
    )
    kept = tuple(
        assess_utility(entry.utility, entry.items, first, second, gate, seed)
        for entry, first, second in zip(panel.utilities, before.utilities, after.utilities, strict=True)
    )
    primary = tuple((entry.measure.name, entry.axis) for entry in panel.measures if entry.primary)
    taken = tuple(entry.utility.name for entry in panel.utilities)
    missing = tuple(entry.name for entry in panel.not_measured if not entry.axis)
    others = tuple((name, axis) for name, axis in panel.others_missing if name in gate.bars)
    barred = tuple((entry.measure.name, entry.axis) for entry in panel.measures if entry.measure.name in gate.bars)
    wanted = Wanted(
        primary=(*primary, *_lacking(panel.primary_missing, panel, primary)),
        utilities=(*taken, *missing),
        others=tuple(_lacking(others, panel, barred)),
    )
    judgement = judge(measured, kept, wanted, gate, weights_changed=weights_changed)
    return Run(seed, measured, kept, judgement)


def _lacking(missing: Iterable[Place], panel: Panel, taken: Iterable[Place]) -> Iterator[Place]:
    """Of what was not taken, what leaves the gate open: a measure that by its nature takes other axes alone does not,
    where one of those `taken` decides, or guards, on the axis.
    """
    covered = {axis for _, axis in taken}
    return (place for place in missing if place not in panel.by_nature or place[1] not in covered)
