# SPDX-License-Identifier: Apache-2.0
"""How well the group of a word can still be read from its embedding: probe leakage, linear and non-linear.

A classifier learns to tell the group from the embeddings of some words of the test part and is asked about others
(five folds; all words that stand for each other are in one fold). The figure is the mean over groups of the share
told right, less chance (one in the number of groups): 0 says that this probe reads nothing. It is reported and never
gated: erasure makes a linear reader fail on the words that it was fitted on, while others and non-linear readers go on
finding the group, so this says what was hidden and what was removed.

The probes are scikit-learn's LogisticRegression (C = 1) and SVC (RBF kernel, C = 1, gamma "scale") on standardised
embeddings, with classes weighed equally.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from cloister_workers.trainer.debias.kinds import FloatArray, ModelKind, Scale
from cloister_workers.trainer.debias.lexicon import fill
from cloister_workers.trainer.debias.material import Part
from cloister_workers.trainer.debias.measure import Items, Missing, SubFigure
from cloister_workers.trainer.debias.subfigures import in_group
from cloister_workers.trainer.debias.subjects import Embeds

FOLDS = 5
_MOST_TEMPLATES = 4


@dataclass(frozen=True)
class Probe:
    """Scores are [n, 1]: 1 where the probe tells the group of a sentence, which it has not seen, right."""

    name: str
    title: str
    source: str
    linear: bool
    kinds: frozenset[ModelKind] = frozenset({ModelKind.ENCODER})
    ideal: float = 0.0
    scale: Scale = Scale.SHARE
    signed: bool = True
    extrinsic: bool = False
    binary: bool = False

    def items(self, part: Part, axis: str) -> Items | Missing:
        lexicon = part.lexicons.get(axis)
        if lexicon is None:
            return Missing("no lexicon of this axis")
        sets = tuple(lexicon.content())
        if len(sets) < 2 * FOLDS:
            return Missing(f"fewer than {2 * FOLDS} sets of words in this part")
        templates = lexicon.templates[:_MOST_TEMPLATES] or ("{word}",)
        rows = [
            (fill(template, word=word), f"words:{'/'.join(entry.words)}", group)
            for entry in sets
            for group, word in zip(lexicon.groups, entry.words, strict=True)
            if word
            for template in templates
        ]
        texts, clusters, groups = zip(*rows, strict=True)
        return Items(texts, clusters, groups, texts=tuple((text,) for text in texts))

    def score(self, subject: Embeds, items: Items) -> FloatArray:
        X, y = subject.embed(items.content), np.array(items.groups)
        right: FloatArray = np.zeros((len(items), 1))
        for train, test in GroupKFold(FOLDS).split(X, y, groups=np.array(items.clusters)):
            probe = make_pipeline(StandardScaler(), self._model()).fit(X[train], y[train])
            right[test, 0] = probe.predict(X[test]) == y[test]
        return right

    def figure(self, items: Items, scores: FloatArray, weights: FloatArray) -> FloatArray:
        """NaN where a draw has no sentence of some group."""
        shares = list(self.by_group(items, scores, weights).values())
        above: FloatArray = np.mean(shares, axis=0) - 1 / len(shares)
        return above

    def by_group(self, items: Items, scores: FloatArray, weights: FloatArray) -> Mapping[str, FloatArray]:
        """The share told right, by group."""
        found = {}
        with np.errstate(invalid="ignore", divide="ignore"):
            for group in sorted(set(items.groups)):
                mine = weights * (np.array(items.groups) == group)
                found[group] = mine @ scores[:, 0] / mine.sum(1)
        return found

    def subfigures(self, items: Items, scores: FloatArray) -> Mapping[str, SubFigure]:
        """The ideal is chance."""
        groups = set(items.groups)
        return {group: SubFigure(self.scale, 1 / len(groups), in_group(items, group), self.signed) for group in groups}

    def _model(self) -> Any:  # noqa: ANN401 - one of scikit-learn's
        if self.linear:
            return LogisticRegression(max_iter=5000, class_weight="balanced")
        return SVC(class_weight="balanced")


MEASURES = (
    Probe(
        "probe_linear",
        "Group read by a linear probe, above chance",
        "Alain and Bengio 2016, arXiv:1610.01644; scikit-learn LogisticRegression",
        linear=True,
    ),
    Probe(
        "probe_nonlinear",
        "Group read by a non-linear probe, above chance",
        "Gonen and Goldberg 2019, arXiv:1903.03862; scikit-learn SVC with RBF kernel",
        linear=False,
    ),
)
