# SPDX-License-Identifier: Apache-2.0
"""Everything that a job measures: which items, on which axes, and the scores of one model on all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cloister_workers.errors import TrainerError
from cloister_workers.trainer.debias.crossing import AtHand
from cloister_workers.trainer.debias.kinds import FloatArray
from cloister_workers.trainer.debias.labelled import BETWEEN
from cloister_workers.trainer.debias.material import Part
from cloister_workers.trainer.debias.measure import Compares, Items, Measure, Missing, Utility
from cloister_workers.trainer.debias.results import NotMeasured
from cloister_workers.trainer.debias.spec import DebiasSpec
from cloister_workers.words import FailureCode


@dataclass(frozen=True)
class Chosen:
    """One measure on one axis with its items."""

    measure: Measure
    axis: str
    items: Items
    primary: bool


@dataclass(frozen=True)
class ChosenUtility:
    """One utility with its items."""

    utility: Utility
    items: Items


@dataclass(frozen=True)
class Panel:
    """What is measured before and after, in the order of the spec: axes inside of measures."""

    measures: tuple[Chosen, ...]
    utilities: tuple[ChosenUtility, ...]
    not_measured: tuple[NotMeasured, ...]
    primary_missing: tuple[tuple[str, str], ...]
    """(measure, axis) that the spec calls primary and that could not be taken."""
    others_missing: tuple[tuple[str, str], ...] = ()
    """The same of other measures. Those on an intersection count only where they compare groups that rows state: word
    lists know no intersections, so the others can never be taken there.
    """
    by_nature: frozenset[tuple[str, str]] = frozenset()
    """Those of both that no material could change: it is enough that another measure is taken on the axis."""


@dataclass(frozen=True)
class Scores:
    """Per-item scores of one model, in the order of the panel."""

    measures: tuple[FloatArray, ...]
    utilities: tuple[FloatArray, ...]


def choose_panel(spec: DebiasSpec, test: Part, at_hand: AtHand | None = None) -> Panel:
    """Choose the items of every measure and utility of the spec from the test part, and mark those that name what was
    `at_hand` to mitigate with.

    Raises TrainerError NOTHING_MEASURED where no primary measure has items.
    """
    chosen: list[Chosen] = []
    missing: list[NotMeasured] = []
    primary_missing: list[tuple[str, str]] = []
    others_missing: list[tuple[str, str]] = []
    by_nature: set[tuple[str, str]] = set()
    for measure in spec.measures:
        for axis in spec.measured_axes:
            items = measure.items(test, axis)
            primary = measure.name in spec.primary and axis in spec.axes and BETWEEN not in axis
            if isinstance(items, Missing):
                missing.append(NotMeasured(measure.name, axis, items.why))
                if items.by_nature:
                    by_nature.add((measure.name, axis))
                if primary:
                    primary_missing.append((measure.name, axis))
                elif BETWEEN not in axis or (isinstance(measure, Compares) and not items.by_nature):
                    others_missing.append((measure.name, axis))
            else:
                marked = items if at_hand is None else at_hand.mark(items)
                chosen.append(Chosen(measure, axis, marked, primary))
                missing += [NotMeasured(measure.name, axis, why) for why in left_out(items)]
    utilities: list[ChosenUtility] = []
    for utility in spec.utilities:
        found = utility.items(test)
        if isinstance(found, Missing):
            missing.append(NotMeasured(utility.name, "", found.why))
        else:
            utilities.append(ChosenUtility(utility, found))
    if not any(entry.primary for entry in chosen):
        raise TrainerError(
            FailureCode.NOTHING_MEASURED,
            f"none of the primary measures {sorted(spec.primary)} can be taken on the evaluation rows; "
            "give rows of the kind that they need",
        )
    return Panel(
        measures=tuple(chosen),
        utilities=tuple(utilities),
        not_measured=tuple(missing),
        primary_missing=tuple(primary_missing),
        others_missing=tuple(others_missing),
        by_nature=frozenset(by_nature),
    )


def left_out(items: Items) -> list[str]:
    """What a measure did not look at, in words for the report."""
    return [f"{count} left out: {why}" for why, count in sorted(items.left_out.items()) if count]


def score_panel(panel: Panel, subject: Any) -> Scores:  # noqa: ANN401 - one of `subjects`
    """Ask one model everything. Items that several measures share are asked for each of them anew."""
    return Scores(
        tuple(entry.measure.score(subject, entry.items) for entry in panel.measures),
        tuple(entry.utility.score(subject, entry.items) for entry in panel.utilities),
    )


def utility_level(panel: Panel, scores: Scores) -> Mapping[str, float]:
    """The level of each utility on all items."""
    return {
        entry.utility.name: float(entry.utility.level(entry.items, taken, _ones(len(entry.items)))[0])
        for entry, taken in zip(panel.utilities, scores.utilities, strict=True)
    }


def _ones(count: int) -> FloatArray:
    import numpy as np

    return np.ones((1, count))
