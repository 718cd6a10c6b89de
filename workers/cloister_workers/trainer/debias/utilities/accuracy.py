# SPDX-License-Identifier: Apache-2.0
"""How well a classifier still sorts: accuracy and macro F1 on labelled rows of the test part.

Both are shares, higher is better, 1 is perfect. The loss is before minus after on the same rows, so a gain is below
0; the gate bounds the upper end of its interval.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cloister_workers.trainer.debias.kinds import FloatArray, ModelKind, Scale
from cloister_workers.trainer.debias.labelled import DecidesByGroup, cluster_of, halves, outcomes, ratio
from cloister_workers.trainer.debias.material import Part
from cloister_workers.trainer.debias.measure import Items, Missing
from cloister_workers.trainer.debias.shapes import Labelled
from cloister_workers.trainer.debias.subjects import Classifies


@dataclass(frozen=True)
class _OfDecisions:
    """What both have in common; scores are decisions and truths, see `labelled.outcomes`."""

    name: str
    title: str
    source: str
    kinds: frozenset[ModelKind] = frozenset({ModelKind.CLASSIFIER})
    scale: Scale = Scale.SHARE
    higher_is_better: bool = True
    binary: bool = True

    def items(self, part: Part) -> Items | Missing:
        rows = part.rows.of(Labelled)
        return Items(rows, tuple(cluster_of(row) for row in rows)) if rows else Missing("no labelled rows")

    def score(self, subject: Classifies | DecidesByGroup, items: Items) -> FloatArray:
        return outcomes(subject, items.content)

    def level(self, items: Items, scores: FloatArray, weights: FloatArray) -> FloatArray:
        raise NotImplementedError

    def loss(self, items: Items, before: FloatArray, after: FloatArray, weights: FloatArray) -> FloatArray:
        return self.level(items, before, weights) - self.level(items, after, weights)


@dataclass(frozen=True)
class Accuracy(_OfDecisions):
    """Weighted share of rows whose decision is their label."""

    def level(self, items: Items, scores: FloatArray, weights: FloatArray) -> FloatArray:
        said, true = halves(scores)
        return ratio(weights @ (said * true).sum(axis=1), weights.sum(axis=1))


@dataclass(frozen=True)
class MacroF1(_OfDecisions):
    """Mean over classes of F1 = 2 tp / (said + true). A class that nobody says and no row bears is left out."""

    def level(self, items: Items, scores: FloatArray, weights: FloatArray) -> FloatArray:
        said, true = halves(scores)
        both = 2 * (weights @ (said * true))
        either = weights @ (said + true)
        present = either > 0
        summed = np.where(present, np.nan_to_num(ratio(both, either)), 0.0).sum(axis=1)
        return ratio(summed, present.sum(axis=1).astype(np.float64))


UTILITIES = (
    Accuracy("accuracy", "Accuracy", "share of equal labels; scikit-learn accuracy_score"),
    MacroF1(
        "macro_f1",
        "Macro F1",
        binary=False,
        source="van Rijsbergen 1979, mean over classes; scikit-learn f1_score(average='macro')",
    ),
)
