# SPDX-License-Identifier: Apache-2.0
"""Labelled rows as measures and mitigations of classifiers look at them: groups, clusters and decisions.

A name of an axis may be an intersection, `gender*age`; its groups are then the products, `female*old`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from cloister_workers.trainer.debias.kinds import FloatArray, IntArray
from cloister_workers.trainer.debias.shapes import Labelled
from cloister_workers.trainer.debias.subjects import Classifies

BETWEEN = "*"
"""Stands between the axes, and between the groups, of an intersection."""


@runtime_checkable
class DecidesByGroup(Protocol):
    """A classifier whose decision depends on the group that a row states, as per-group thresholds have it."""

    labels: tuple[str, ...]

    def decisions(self, rows: Sequence[Labelled]) -> IntArray:
        """int64 [n], indices into `labels`."""
        ...


def group_of(row: Labelled, axis: str) -> str:
    """The group of a row on an axis or intersection; "" where the row does not state all of it."""
    groups = [row.groups.get(name, "") for name in axis.split(BETWEEN)]
    return BETWEEN.join(groups) if all(groups) else ""


def cluster_of(row: Labelled) -> str:
    """The independent unit of a row: its person, else its template, else its text."""
    tied = (("person", row.person), ("template", row.template))
    return next((f"{name}:{value}" for name, value in tied if value), f"text:{row.text}")


def groups_of(rows: Iterable[Labelled], axis: str) -> tuple[str, ...]:
    """All groups that the rows state, in code point order."""
    return tuple(sorted({group for row in rows if (group := group_of(row, axis))}))


def decided(subject: Classifies | DecidesByGroup, rows: Sequence[Labelled]) -> IntArray:
    """The class of each row as the subject decides it: int64 [n], indices into `subject.labels`. The class with the
    largest logit, the first of equals.
    """
    if isinstance(subject, DecidesByGroup):
        return subject.decisions(rows)
    chosen: IntArray = subject.logits([row.text for row in rows]).argmax(axis=1).astype(np.int64)
    return chosen


def outcomes(subject: Classifies | DecidesByGroup, rows: Sequence[Labelled]) -> FloatArray:
    """Decision and truth, each as one of C columns: float64 [n, 2C] of 0 and 1.

    The first C columns mark the decision, the others the label, in the order of `subject.labels`. A label that the
    classifier does not know marks nothing, so that no decision counts as right.
    """
    width = len(subject.labels)
    place = {label: index for index, label in enumerate(subject.labels)}
    found: FloatArray = np.zeros((len(rows), 2 * width))
    found[np.arange(len(rows)), decided(subject, rows)] = 1.0
    for number, row in enumerate(rows):
        if row.label in place:
            found[number, width + place[row.label]] = 1.0
    return found


def halves(scores: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Decisions and truths [n, C] each, as `outcomes` put them together."""
    width = scores.shape[1] // 2
    return scores[:, :width], scores[:, width:]


def ratio(top: FloatArray, bottom: FloatArray) -> FloatArray:
    """Elementwise top / bottom; NaN where the bottom is 0."""
    shaped = np.broadcast_to(bottom, top.shape)
    found: FloatArray = np.divide(top, shaped, out=np.full(top.shape, np.nan), where=shaped > 0)
    return found
