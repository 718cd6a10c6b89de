# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: N803, N806 - matrices have capital letters in every paper
"""The erasers against the package of LEACE's authors and against their definitions."""

from __future__ import annotations

import numpy as np
import pytest

from cloister_workers.trainer.debias.erasers import (
    Affine,
    centred_in_sets,
    fit_leace,
    fit_mean_difference,
    fit_orthogonal,
    fit_pca,
    shrunk,
)

# concept-erasure compiles a function when it is imported, in a way that torch is leaving
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")


def data(n: int, d: int, k: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Correlated X [n, d] off the origin in which one of k groups can be read, Z one-hot, and the groups."""
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, k, n)
    X = rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) + rng.normal(size=d) * 3
    return X + rng.normal(size=(k, d))[groups] * 2, np.eye(k)[groups], groups


def oracle(X, Z, **settings) -> Affine:
    """The map of the concept-erasure package, written as P x + b."""
    import torch
    from concept_erasure import LeaceFitter

    eraser = LeaceFitter.fit(torch.from_numpy(X), torch.from_numpy(Z), **settings).eraser
    P = eraser.P.numpy()
    return Affine(P, (np.eye(len(P)) - P) @ eraser.bias.numpy())


@pytest.mark.parametrize(
    ("n", "d", "k", "shrinkage"),
    [(400, 12, 2, True), (400, 12, 2, False), (400, 12, 4, True), (60, 80, 2, True), (2000, 30, 3, False)],
)
def test_leace_equals_the_package_of_its_authors(n, d, k, shrinkage):
    """Matrix, bias and mapped rows agree to 1e-8, with shrinkage and without, for more rows and for fewer."""
    X, Z, _ = data(n, d, k, seed=n + d + k)
    theirs = oracle(X, Z, shrinkage=shrinkage)
    mine = fit_leace(X, Z, shrinkage=shrinkage)
    np.testing.assert_allclose(mine.P, theirs.P, atol=1e-8)
    np.testing.assert_allclose(mine.b, theirs.b, atol=1e-7)
    np.testing.assert_allclose(mine(X), theirs(X), atol=1e-7)


def test_shrinkage_equals_the_package():
    """The shrunk covariance is that of the package to the bit or nearly."""
    import torch
    from concept_erasure.shrinkage import optimal_linear_shrinkage

    X, _, _ = data(50, 20, 2, seed=5)
    S = np.cov(X.T, bias=True)
    np.testing.assert_allclose(shrunk(S, 50), optimal_linear_shrinkage(torch.from_numpy(S), 50).numpy(), rtol=1e-12)


def test_after_leace_no_group_mean_differs():
    """On its own data LEACE leaves no covariance between representation and group, so all group means are equal."""
    X, Z, groups = data(3000, 15, 3, seed=2)
    mapped = fit_leace(X, Z, shrinkage=False)(X)
    means = np.stack([mapped[groups == group].mean(0) for group in range(3)])
    np.testing.assert_allclose(means, np.broadcast_to(mapped.mean(0), means.shape), atol=1e-9)
    np.testing.assert_allclose(mapped.mean(0), X.mean(0), atol=1e-9)


def test_a_linear_classifier_does_no_better_than_chance_after_leace():
    """Scikit-learn's logistic regression reads the groups before, and after only the largest group's share."""
    from sklearn.linear_model import LogisticRegression

    X, Z, groups = data(2000, 10, 2, seed=4)
    mapped = fit_leace(X, Z, shrinkage=False)(X)
    before = LogisticRegression(max_iter=5000).fit(X, groups).score(X, groups)
    after = LogisticRegression(max_iter=5000).fit(mapped, groups).score(mapped, groups)
    assert before > 0.75
    assert after <= np.bincount(groups).max() / len(groups) + 1e-9


def test_leace_never_raises_the_variance():
    """Even an oblique map, of a group that shows beside a direction of large variance, leaves less than there was."""
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 2, 4000)
    X = rng.normal(size=(4000, 2)) * [10.0, 0.1]
    X[:, 1] += 0.0099 * X[:, 0] + 0.05 * groups
    X[:, 0] += 4.0 * groups
    S = np.cov(X.T)
    P = fit_leace(X, np.eye(2)[groups], shrinkage=False).P
    assert abs(P[0, 1]) > 10
    assert np.linalg.eigvalsh(S - P @ S @ P.T).min() >= -1e-9


def test_orthogonal_equals_its_definition():
    """I - U U^T with U from a QR of the cross-covariance, about the mean; the package's `orth` agrees."""
    X, Z, _ = data(500, 12, 3, seed=9)
    C = (X - X.mean(0)).T @ (Z - Z.mean(0)) / (len(X) - 1)
    U = np.linalg.qr(C[:, :2])[0]
    mine = fit_orthogonal(X, Z)
    np.testing.assert_allclose(mine.P, np.eye(12) - U @ U.T, atol=1e-10)
    np.testing.assert_allclose(mine(X), X - (X - X.mean(0)) @ U @ U.T, atol=1e-10)
    np.testing.assert_allclose(mine.P, oracle(X, Z, method="orth").P, atol=1e-10)
    assert mine.rank == 2


def test_mean_difference_equals_its_definition():
    """For two groups: x - u u^T (x - mean) with u the unit vector between the means."""
    X, _, groups = data(300, 8, 2, seed=1)
    u = X[groups == 1].mean(0) - X[groups == 0].mean(0)
    u /= np.linalg.norm(u)
    mine = fit_mean_difference(X, groups)
    np.testing.assert_allclose(mine(X), X - np.outer((X - X.mean(0)) @ u, u), atol=1e-12)
    assert mine.rank == 1


def test_pca_equals_scikit_learn_on_pairs():
    """On data centred within pairs, PCA-k takes out scikit-learn's first k components."""
    from sklearn.decomposition import PCA

    rng = np.random.default_rng(3)
    middle, apart = rng.normal(size=(100, 9)), rng.normal(size=(100, 9)) * np.arange(1, 10)
    X = np.concatenate([middle + apart, middle - apart])
    centred = centred_in_sets(X, np.tile(np.arange(100), 2))
    np.testing.assert_allclose(centred, np.concatenate([apart, -apart]), atol=1e-12)
    U = PCA(3).fit(centred).components_.T
    np.testing.assert_allclose(fit_pca(centred, 3, X.mean(0)).P, np.eye(9) - U @ U.T, atol=1e-10)


def test_what_cannot_be_fitted_is_refused():
    """One group, one row, or more directions than the data have are errors in words."""
    X, Z, _ = data(20, 5, 2, seed=0)
    with pytest.raises(ValueError, match="2 or more"):
        fit_mean_difference(X, np.zeros(20, dtype=int))
    with pytest.raises(ValueError, match="2 or more"):
        fit_leace(X[:1], Z[:1])
    with pytest.raises(ValueError, match="smaller k"):
        fit_pca(X[:3] - X[:3].mean(0), 3, X.mean(0))


def test_a_constant_group_changes_nothing():
    """Where Z is the same in all rows there is nothing to erase: the map is the identity."""
    X, _, _ = data(50, 6, 2, seed=0)
    for mine in (fit_leace(X, np.ones((50, 1))), fit_orthogonal(X, np.ones((50, 1)))):
        np.testing.assert_allclose(mine(X), X, atol=1e-12)
        assert mine.rank == 0
