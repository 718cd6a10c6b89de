# SPDX-License-Identifier: Apache-2.0
"""Linear concept erasure in closed form: affine maps after which a concept is no longer linearly readable.

Rows of X [n, d] are representations, rows of Z [n, k] say which group each one speaks of. All is double precision.

    LEACE            Belrose et al. 2023, arXiv:2306.03819: the smallest change, in the metric of the data's own
                     covariance, after which no linear classifier does better than chance
    orthogonal       projects out the span of the cross-covariance of X and Z
    mean difference  projects out the differences of group means
    PCA              projects out the first k principal directions of X, meant for data centred within each pair
                     (Bolukbasi et al. 2016, arXiv:1607.06520)

None of them removes what a non-linear reader finds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cloister_workers.trainer.debias.kinds import FloatArray, IntArray

SVD_TOLERANCE = 0.01


@dataclass(frozen=True)
class Affine:
    """r(x) = P x + b; P [d, d], b [d]."""

    P: FloatArray
    b: FloatArray

    def __call__(self, X: FloatArray) -> FloatArray:
        """Each row of X [n, d] mapped."""
        mapped: FloatArray = X @ self.P.T + self.b
        return mapped

    @property
    def rank(self) -> int:
        """How many directions are taken out."""
        return int(np.linalg.matrix_rank(np.eye(len(self.P)) - self.P, tol=1e-8))


def fit_leace(X: FloatArray, Z: FloatArray, svd_tol: float = SVD_TOLERANCE, *, shrinkage: bool = True) -> Affine:
    """r(x) = x - W^+ U U^T W (x - mean), W = Sxx^(-1/2), U the left singular vectors of W Sxz above `svd_tol`.

    `shrinkage` estimates Sxx as `shrunk` does, which more dimensions than rows need. The variance never rises, since
    P Sxx P^T = W^+ (I - U U^T) W^+ <= Sxx. Raises ValueError for fewer than 2 rows.
    """
    Xc, Zc = _centred(X, Z)
    n, d = Xc.shape
    S = shrunk(Xc.T @ Xc / n, n) if shrinkage else Xc.T @ Xc / (n - 1)
    values, vectors = np.linalg.eigh(S)
    kept = values > values[-1] * d * np.finfo(np.float64).eps
    roots = np.sqrt(np.where(kept, values, 1.0))
    W = (vectors * np.where(kept, 1 / roots, 0.0)) @ vectors.T
    unwhiten = (vectors * np.where(kept, roots, 0.0)) @ vectors.T
    U = _left(W @ Xc.T @ Zc / (n - 1), svd_tol)
    return _about(np.eye(d) - unwhiten @ U @ U.T @ W, X.mean(0))


def fit_orthogonal(X: FloatArray, Z: FloatArray, svd_tol: float = SVD_TOLERANCE) -> Affine:
    """r(x) = x - U U^T (x - mean), U the left singular vectors of Sxz whose values are above `svd_tol` times the
    largest. Raises ValueError for fewer than 2 rows.
    """
    Xc, Zc = _centred(X, Z)
    Sxz = Xc.T @ Zc / (len(Xc) - 1)
    return _projection(_left(Sxz, svd_tol * float(np.linalg.norm(Sxz, 2))), X.mean(0))


def fit_mean_difference(X: FloatArray, groups: IntArray, axes: IntArray | None = None) -> Affine:
    """r(x) = x - U U^T (x - mean), U a basis of the differences of each group's mean from that of the first group of
    its axis: one direction for one axis of two groups. Directions below 1e-9 of the largest do not count.

    `groups` [n] numbers the groups of all axes, `axes` [n] says of which axis each row speaks; without it there is
    one. Raises ValueError for an axis of one group.
    """
    axes = np.zeros_like(groups) if axes is None else axes
    differences = []
    for axis in np.unique(axes):
        mine = axes == axis
        present = np.unique(groups[mine])
        if len(present) < 2:
            raise ValueError(f"{len(present)} group on an axis; a difference of means needs 2 or more")
        means = np.stack([X[mine & (groups == group)].mean(0) for group in present])
        differences.append(means[1:] - means[0])
    stacked = np.concatenate(differences).T
    return _projection(_left(stacked, 1e-9 * float(np.linalg.norm(stacked, 2))), X.mean(0))


def fit_pca(X: FloatArray, k: int, centre: FloatArray) -> Affine:
    """r(x) = x - U U^T (x - centre), U the first k right singular vectors of X as it is: centre it first.

    `centre` [d] is the mean of the data that the map is for. Raises ValueError where X has rank below k.
    """
    _, values, vectors = np.linalg.svd(X, full_matrices=False)
    if k > len(values) or not values[k - 1] > values[0] * 1e-9:
        raise ValueError(f"the data have fewer than {k} directions; choose a smaller k")
    return _projection(vectors[:k].T, centre)


def centred_in_sets(X: FloatArray, sets: IntArray) -> FloatArray:
    """Each row less the mean of the rows of its set (a pair, for two groups): what is left differs by group alone."""
    _, index, counts = np.unique(sets, return_inverse=True, return_counts=True)
    totals: FloatArray = np.zeros((len(counts), X.shape[1]))
    np.add.at(totals, index, X)
    left: FloatArray = X - (totals / counts[:, None])[index]
    return left


def shrunk(S: FloatArray, n: int) -> FloatArray:
    """The estimate a S + b I tr(S)/d: the optimal linear shrinkage of a sample covariance S [d, d] of n rows (Bodnar,
    Gupta and Parolya 2014, doi:10.1016/j.jmva.2014.09.006).
    """
    d = len(S)
    trace, target = np.trace(S), np.eye(d) * np.trace(S) / d
    size, aim, both = np.sum(S * S), np.sum(target * target), np.sum(S * target)
    eps = np.finfo(np.float64).eps
    a = 1 - (trace**2 * aim / n + eps) / (size * aim - both**2 + eps)
    estimate: FloatArray = a * S + (1 - a) * (both + eps) / (aim + eps) * target
    return estimate


def _centred(X: FloatArray, Z: FloatArray) -> tuple[FloatArray, FloatArray]:
    if len(X) < 2 or len(X) != len(Z):
        raise ValueError(f"{len(X)} rows of X and {len(Z)} of Z; give as many of both, 2 or more")
    return X - X.mean(0), Z - Z.mean(0)


def _left(A: FloatArray, above: float) -> FloatArray:
    U, values, _ = np.linalg.svd(A, full_matrices=False)
    kept: FloatArray = U[:, values > above]
    return kept


def _projection(U: FloatArray, centre: FloatArray) -> Affine:
    return _about(np.eye(len(U)) - U @ U.T, centre)


def _about(P: FloatArray, centre: FloatArray) -> Affine:
    """The map with linear part P that leaves `centre` where it is."""
    return Affine(P, centre - P @ centre)
