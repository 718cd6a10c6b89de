# SPDX-License-Identifier: Apache-2.0
"""StereoSet's language model score: how often a sentence that means something is likelier than one that does not.

In points, 100 is best, 50 is chance; the loss is before minus after, in points. All axes together, mean over target
terms, intervals cluster on the term. Definition: `measures/stereoset.py`; Nadeem et al. 2021, arXiv:2004.09456.
"""

from __future__ import annotations

from cloister_workers.trainer.debias.kinds import FloatArray, ModelKind, Scale
from cloister_workers.trainer.debias.material import Part
from cloister_workers.trainer.debias.measure import Items, Missing, Utility
from cloister_workers.trainer.debias.measures.stereoset import (
    StereoSetRow,
    judged,
    mean_over_terms,
    stereoset_items,
)
from cloister_workers.trainer.debias.subjects import Continues, FillsMasks


class LanguageModelScore:
    """LMS over the rows of all axes."""

    name = "stereoset_lms"
    title = "StereoSet, language model score"
    kinds = frozenset({ModelKind.CAUSAL, ModelKind.MASKED})
    scale = Scale.POINTS
    higher_is_better = True
    binary = False  # a mean over terms of shares, each of several rows: no rate of rare events
    source = "Nadeem et al. 2021, arXiv:2004.09456"

    def items(self, part: Part) -> Items | Missing:
        rows = part.rows.of(StereoSetRow)
        return stereoset_items(rows) if rows else Missing("no rows of kind stereoset")

    def score(self, subject: Continues | FillsMasks, items: Items) -> FloatArray:
        return judged(subject, items.content)

    def level(self, items: Items, scores: FloatArray, weights: FloatArray) -> FloatArray:
        return mean_over_terms(items, scores, weights, 1)

    def loss(self, items: Items, before: FloatArray, after: FloatArray, weights: FloatArray) -> FloatArray:
        return self.level(items, before, weights) - self.level(items, after, weights)


UTILITIES: tuple[Utility, ...] = (LanguageModelScore(),)
