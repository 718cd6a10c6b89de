# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: N803, N806 - matrices have capital letters in every paper
"""What an encoder must not lose, against scipy and scikit-learn."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr

from cloister_workers.trainer.debias.lexicon import Lexicon, SwapSet
from cloister_workers.trainer.debias.material import Material, Part
from cloister_workers.trainer.debias.measure import Items, Missing
from cloister_workers.trainer.debias.neutral import neutral_texts
from cloister_workers.trainer.debias.shapes import Text
from cloister_workers.trainer.debias.utilities.similarity import NEIGHBOURS, UTILITIES
from tiny_encoder import planted_part

STRUCTURE: Any
NEAREST: Any
STRUCTURE, NEAREST = UTILITIES


def embeddings(n: int, noise: float, seed: int = 0) -> tuple[Items, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    before = rng.normal(size=(n, 9))
    items = Items(tuple(f"t{i}" for i in range(n)), tuple(f"text:t{i}" for i in range(n)))
    return items, before, before + noise * rng.normal(size=before.shape)


def cosines(X):
    X = X / np.linalg.norm(X, axis=1, keepdims=True)
    return (X @ X.T)[np.triu_indices(len(X), 1)]


@pytest.mark.parametrize("noise", [0.1, 0.5, 5.0])
def test_structure_is_one_less_spearman(noise):
    """With equal weights the loss is 1 - scipy's Spearman correlation over all pairs, ties included."""
    items, before, after = embeddings(40, noise)
    before[3], after[3] = before[4], after[4]
    expected = 1 - spearmanr(cosines(before), cosines(after)).statistic
    assert STRUCTURE.loss(items, before, after, np.ones((1, 40)))[0] == pytest.approx(expected, abs=1e-12)
    assert STRUCTURE.loss(items, before, after, np.full((1, 40), 3.0))[0] == pytest.approx(expected, abs=1e-12)


def test_weights_weigh_pairs():
    """Under weights the loss is 1 - Pearson's correlation of the pairs' ranks, each pair weighing w_i w_j."""
    items, before, after = embeddings(30, 0.6)
    rng = np.random.default_rng(1)
    weights = rng.integers(0, 4, size=(5, 30)).astype(float)
    from scipy.stats import rankdata

    x, y = rankdata(cosines(before)), rankdata(cosines(after))
    i, j = np.triu_indices(30, 1)
    for draw, value in zip(weights, STRUCTURE.loss(items, before, after, weights), strict=True):
        covariance = np.cov(x, y, aweights=draw[i] * draw[j])
        expected = 1 - covariance[0, 1] / np.sqrt(covariance[0, 0] * covariance[1, 1])
        assert value == pytest.approx(expected, abs=1e-10)


def test_fixed_ranks_spread_like_ranks_taken_anew():
    """Over bootstrap draws, the spread of the estimator is within a fifth of that of Spearman computed in each draw."""
    items, before, after = embeddings(80, 0.7)
    rng = np.random.default_rng(2)
    draws = rng.multinomial(80, np.full(80, 1 / 80), size=200).astype(float)
    fast = STRUCTURE.loss(items, before, after, draws)
    slow = []
    for draw in draws:
        chosen = np.repeat(np.arange(80), draw.astype(int))
        i, j = np.triu_indices(80, 1)
        apart = chosen[i] != chosen[j]
        slow.append(1 - spearmanr(cosines(before[chosen])[apart], cosines(after[chosen])[apart]).statistic)
    assert np.std(fast) == pytest.approx(np.std(slow), rel=0.2)
    assert np.corrcoef(fast, slow)[0, 1] > 0.95


def test_a_turn_or_a_scale_loses_nothing():
    """An encoder that is only rotated and scaled keeps all likenesses and neighbours."""
    items, before, _ = embeddings(50, 0)
    turn = np.linalg.qr(np.random.default_rng(3).normal(size=(9, 9)))[0]
    for utility in UTILITIES:
        assert utility.loss(items, before, 4 * before @ turn, np.ones((1, 50)))[0] == pytest.approx(0, abs=1e-9)
        assert np.isnan(utility.level(items, before, np.ones((2, 50)))).all()


def test_neighbours_equal_scikit_learn():
    """The loss is 1 - the mean overlap of scikit-learn's ten nearest by cosine, weighed by text."""
    from sklearn.neighbors import NearestNeighbors

    items, before, after = embeddings(60, 0.8)
    sets = []
    for X in (before, after):
        found = NearestNeighbors(n_neighbors=NEIGHBOURS, metric="cosine").fit(X).kneighbors(return_distance=False)
        sets.append([set(row) for row in found])
    kept = np.array([len(a & b) / NEIGHBOURS for a, b in zip(*sets, strict=True)])
    weights = np.random.default_rng(0).integers(0, 3, size=(4, 60)).astype(float)
    np.testing.assert_allclose(
        NEAREST.loss(items, before, after, weights), 1 - (weights @ kept) / weights.sum(1), atol=1e-12
    )


def test_a_draw_of_one_text_has_no_structure():
    """Weights that leave a single text give no number, and nothing warns."""
    items, before, after = embeddings(40, 0.3)
    assert np.isnan(STRUCTURE.loss(items, before, after, np.eye(40)[:1])[0])


def test_items_are_neutral_texts():
    """Users' texts come before the lists' sentences, each once; fewer than forty are not measured on."""
    part = planted_part(rows=(Text("a text of a user"), Text("and m3 of the list")))
    items = STRUCTURE.items(part)
    assert items.content[0] == "a text of a user"
    assert len(items) == len(set(items.content)) == 61
    assert isinstance(STRUCTURE.items(Part(Material(), {})), Missing)


def test_texts_that_an_axis_touches_are_not_neutral():
    """Terms, phrases, function words and words of other parts make a text not neutral; look-alikes do not."""
    lexicon = Lexicon(
        axis="age",
        language="en",
        groups=("old", "young"),
        swaps=(
            SwapSet(("the elderly", "the young")),
            SwapSet(("he", "she"), "function"),
            SwapSet(("Rose", "Mark"), "name"),
        ),
        held_out=(SwapSet(("uncle", "nephew")),),
        ambiguous=frozenset({"mark"}),
    )
    texts = [
        "The bridge is new.",
        "The elderly bridge",
        "What SHE saw",
        "an uncle",
        "a mark on it",
        "a rose",
        "unclear",
    ]
    part = Part(Material.from_rows(tuple(Text(text) for text in texts)), {"age": lexicon})
    assert neutral_texts(part) == ("The bridge is new.", "a mark on it", "unclear")
    assert neutral_texts(replace(part, lexicons={})) == tuple(texts)
