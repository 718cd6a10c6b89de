# SPDX-License-Identifier: Apache-2.0
"""Which measures of a de-biasing job can be taken on which axes, and what follows for its gate.

A measure that takes some axes alone leaves the gate open on another one only where nothing else decides, or guards,
there (`cloister_workers.trainer.debias.verdicts`).  Whether there are rows for the others shows when the job runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cloister.api.v1 import spec_pb2
from cloister.debias import MEASURES
from cloister.errors import UsageError
from cloister.gate import Gate

_BETWEEN = "*"


def can_take(name: str, axis: str, language: str) -> bool:
    """Whether a measure can be taken on an axis or intersection, given rows or word lists; a site's own one may."""
    known = MEASURES.get(name)
    if known is None:
        return True
    if known.languages and language not in known.languages:
        return False
    return known.intersections if _BETWEEN in axis else not known.axes or axis in known.axes


def takes_any(name: str, wanted: spec_pb2.Debias) -> bool:
    """Whether a measure can be taken on any axis that a specification mitigates or guards."""
    return any(can_take(name, axis, wanted.language) for axis in (*wanted.axes, *wanted.guard_axes))


def check_reach(wanted: spec_pb2.Debias) -> None:
    """Raises UsageError where no primary measure of a resolved specification can be taken on any of its axes."""
    plain = _plain(wanted.axes)
    if not plain:
        raise UsageError(
            f"spec: axes holds intersections alone ({_listed(wanted.axes)}), and none is decided on; "
            "add plain axes, such as gender"
        )
    if not any(can_take(name, axis, wanted.language) for name in wanted.primary for axis in plain):
        raise UsageError(
            f"spec: none of the primary measures can be taken on the axes {_listed(plain)}: "
            f"{_limits(wanted.primary)}; choose other primary measures, or other axes"
        )


def remarks_of_reach(wanted: spec_pb2.Debias, gate: Gate) -> Iterable[str]:
    """What is not measured whatever the rows are, and which axes keep the gate from a PASS."""
    axes = [*wanted.axes, *wanted.guard_axes]
    for name in wanted.measures:
        lacking = [axis for axis in _plain(axes) if not can_take(name, axis, wanted.language)]
        if lacking:
            yield f"{_limits([name])}: it is not taken on {_listed(lacking)}"
    for axis in axes:
        if _BETWEEN in axis and not _takers(wanted.measures, axis, wanted.language):
            yield f"{axis} is not measured: none of the measures can be taken on an intersection"
    for axis in _plain(wanted.axes):
        if not _takers(wanted.primary, axis, wanted.language):
            yield (
                f"no primary measure can be taken on {axis}: the gate cannot PASS; "
                "add a primary measure that can, or leave the axis out"
            )
    barred = [name for name in wanted.measures if name in gate.bars]
    for axis in _plain(wanted.guard_axes):
        if barred and not _takers(barred, axis, wanted.language):
            yield (
                f"no measure with a bar can be taken on {axis}, which is guarded: the gate cannot PASS; "
                "add a measure that can, or leave the axis out"
            )


def _plain(axes: Iterable[str]) -> list[str]:
    return [axis for axis in axes if _BETWEEN not in axis]


def _takers(names: Iterable[str], axis: str, language: str) -> list[str]:
    return [name for name in names if can_take(name, axis, language)]


def _limits(names: Sequence[str]) -> str:
    """What measures are limited to: `winogender takes the axis gender alone`."""
    said = []
    for name in names:
        known = MEASURES[name]
        limits = (("axis", known.axes), ("language", known.languages))
        only = [f"the {what} {_listed(some)} alone" for what, some in limits if some]
        said.append(f"{name} takes {' and '.join(only)}")
    return "; ".join(said)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)
