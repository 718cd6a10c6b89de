# SPDX-License-Identifier: Apache-2.0
"""How to read each figure of `by_group`: its unit, its ideal, and the items behind it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from cloister_workers.trainer.debias.kinds import FloatArray, Scale
from cloister_workers.trainer.debias.measure import HasParts, Items, Measure, SubFigure, TellsGroups

NOT_AT_HAND = "items that name no word at hand"
"""The figure of those that name no word or name that there was to mitigate with (`Items.overlap`)."""
_SAME, _EFFECT = ("", " raw"), " d"
"""What follows a part's name where the figure is that of the part, and where it is its effect size."""


def subfigures(measure: Measure, items: Items, scores: FloatArray, names: Iterable[str]) -> Mapping[str, SubFigure]:
    """One for each of `names`, the figures of `by_group`: the measure's own word, else what its name tells.

    A name that begins with a part's is a figure of that part; one that begins with a group's (`female` or `female:
    chosen as yes`) is taken from the items of that group and has no ideal; any other is taken from all items.
    """
    told = dict(measure.subfigures(items, scores)) if isinstance(measure, TellsGroups) else {}
    if items.overlap:
        apart = 1.0 - np.asarray(items.overlap, dtype=float)
        told[NOT_AT_HAND] = SubFigure(measure.scale, measure.ideal, apart, measure.signed)
    parts = measure.members(items) if isinstance(measure, HasParts) else {}
    return {name: told.get(name) or _of_part(measure, parts, name) or _of_group(measure, items, name) for name in names}


def in_group(items: Items, group: str) -> FloatArray:
    """The items of a group: 0/1 [n]."""
    return np.array([float(entry == group) for entry in items.groups])


def part_of(name: str, parts: Iterable[str]) -> str | None:
    """The part whose figure, on the measure's scale, goes by `name` in `by_group`."""
    return next((part for part in parts for suffix in _SAME if name == f"{part}{suffix}"), None)


def _of_part(measure: Measure, parts: Mapping[str, FloatArray], name: str) -> SubFigure | None:
    if (part := part_of(name, parts)) is not None:
        return SubFigure(measure.scale, measure.ideal, parts[part], measure.signed)
    effect = name.removesuffix(_EFFECT)
    return SubFigure(Scale.DEVIATIONS, measure.ideal, parts[effect], measure.signed) if effect in parts else None


def _of_group(measure: Measure, items: Items, name: str) -> SubFigure:
    found = next((mask for group in (name, name.partition(":")[0]) if (mask := in_group(items, group)).any()), None)
    return SubFigure(measure.scale, None, np.ones(len(items)) if found is None else found, measure.signed)
