# SPDX-License-Identifier: Apache-2.0
"""Whether a sentence encoder still sees the same likenesses: cosines of neutral texts before and after.

`similarity_structure` loses 1 - Spearman's correlation between the cosines of all pairs before and those after;
`nearest_neighbours` loses 1 - the mean share of a text's ten nearest neighbours that stay. Both losses are 0 for an
encoder that is unchanged, or only turned or scaled.

Spearman under bootstrap weights: the ranks of all pairs are taken once, on all texts; under weights w the figure is
Pearson's correlation of these ranks, a pair (i, j) weighing w_i w_j. With equal weights that is Spearman's
correlation to the bit. A draw that holds a text twice has no pair of it with itself, whose cosine is always 1. Ranks
are not taken anew in each draw, which would cost n^2 log n a draw: the correlation of fixed ranks has the same limit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from cloister_workers.trainer.debias.kinds import FloatArray, ModelKind, Scale
from cloister_workers.trainer.debias.material import Part
from cloister_workers.trainer.debias.measure import Items, Missing
from cloister_workers.trainer.debias.neutral import neutral_texts
from cloister_workers.trainer.debias.subjects import Embeds

NEIGHBOURS = 10
_FEWEST, _MOST = 40, 600  # texts: ten of fewer are no neighbourhood, and pairs grow with the square


@dataclass(frozen=True)
class _OfCosines:
    """What both have in common; scores are embeddings [n, d]."""

    name: str
    title: str
    source: str
    kinds: frozenset[ModelKind] = frozenset({ModelKind.ENCODER})
    scale: Scale = Scale.SHARE
    higher_is_better: bool = True
    binary: bool = False

    def items(self, part: Part) -> Items | Missing:
        texts = neutral_texts(part)[:_MOST]
        if len(texts) < _FEWEST:
            return Missing(f"fewer than {_FEWEST} neutral texts")
        return Items(texts, tuple(f"text:{text}" for text in texts))

    def score(self, subject: Embeds, items: Items) -> FloatArray:
        return subject.embed(items.content)

    def level(self, items: Items, scores: FloatArray, weights: FloatArray) -> FloatArray:
        """NaN: one encoder alone has no likeness to keep."""
        return np.full(len(weights), np.nan)


class SimilarityStructure(_OfCosines):
    """1 - Spearman's correlation of pairwise cosines."""

    def loss(self, items: Items, before: FloatArray, after: FloatArray, weights: FloatArray) -> FloatArray:
        x, y = _ranks(before), _ranks(after)
        total, mx, my = (_quadratic(weights, matrix) for matrix in (_off_diagonal(len(items)), x, y))
        with np.errstate(invalid="ignore", divide="ignore"):
            mx, my = mx / total, my / total
            xx, yy, xy = (_quadratic(weights, a * b) / total for a, b in ((x, x), (y, y), (x, y)))
            lost: FloatArray = 1 - (xy - mx * my) / np.sqrt((xx - mx**2) * (yy - my**2))
        return lost


class NearestNeighbours(_OfCosines):
    """1 - mean overlap of the ten nearest neighbours among all the texts."""

    def loss(self, items: Items, before: FloatArray, after: FloatArray, weights: FloatArray) -> FloatArray:
        kept = (_neighbours(before) & _neighbours(after)).sum(1) / NEIGHBOURS
        with np.errstate(invalid="ignore", divide="ignore"):
            lost: FloatArray = 1 - weights @ kept / weights.sum(1)
        return lost


def cosines(X: FloatArray, Y: FloatArray) -> FloatArray:
    """Cosines [n, m] of the rows of X [n, d] with those of Y [m, d]; 0 with a row of zeros."""
    both: FloatArray = unit(X) @ unit(Y).T
    return both


def unit(X: FloatArray) -> FloatArray:
    """Rows at length 1; a row of zeros stays."""
    lengths = np.linalg.norm(X, axis=1, keepdims=True)
    scaled: FloatArray = X / np.where(lengths > 0, lengths, 1.0)
    return scaled


def _off_diagonal(n: int) -> FloatArray:
    return np.ones((n, n)) - np.eye(n)


def _ranks(X: FloatArray) -> FloatArray:
    """Ranks of the cosines of all pairs, ties at their mean, scaled to (-1, 1), symmetric; 0 on the diagonal."""
    n = len(X)
    upper = np.triu_indices(n, 1)
    ranks = rankdata(cosines(X, X)[upper])
    table: FloatArray = np.zeros((n, n))
    table[upper] = (2 * ranks - len(ranks) - 1) / len(ranks)
    return table + table.T


def _quadratic(weights: FloatArray, matrix: FloatArray) -> FloatArray:
    """w^T M w for each row w of weights [b, n]."""
    values: FloatArray = np.einsum("bi,bi->b", weights @ matrix, weights)
    return values


def _neighbours(X: FloatArray) -> NDArray[np.bool_]:
    """Bool [n, n]: whether j is among the nearest of i; of equals the first."""
    likeness = cosines(X, X)
    np.fill_diagonal(likeness, -np.inf)
    nearest = np.argsort(-likeness, axis=1, kind="stable")[:, :NEIGHBOURS]
    table = np.zeros(likeness.shape, dtype=bool)
    np.put_along_axis(table, nearest, True, axis=1)
    return table


UTILITIES = (
    SimilarityStructure(
        "similarity_structure",
        "Similarity structure (Spearman of pairwise cosines)",
        "Spearman on pairwise cosines; Kriegeskorte et al. 2008, doi:10.3389/neuro.06.004.2008",
    ),
    NearestNeighbours(
        "nearest_neighbours", "Nearest neighbours kept (of 10)", "mean overlap of 10-nearest-neighbour sets by cosine"
    ),
)
