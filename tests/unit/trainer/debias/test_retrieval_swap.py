# SPDX-License-Identifier: Apache-2.0
"""Search results under a swap of groups, on vectors whose neighbours are known."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from cloister_workers.trainer.debias.material import Material, Part
from cloister_workers.trainer.debias.measure import Missing
from cloister_workers.trainer.debias.measures.retrieval_stereotype import RetrievalStereotype
from cloister_workers.trainer.debias.measures.retrieval_swap import NEAREST, RetrievalSwap, nearest
from cloister_workers.trainer.debias.shapes import Pair, Text
from tiny_encoder import planted_part

SWAP: Any = RetrievalSwap()
STEREOTYPE: Any = RetrievalStereotype()


@dataclass
class Placed:
    """Stands for an encoder: `place` gives each text its vector."""

    place: Any
    asked: list[str] = field(default_factory=list)

    def embed(self, texts) -> np.ndarray:
        self.asked += texts
        return np.stack([self.place(text) for text in texts])


def angle(degrees: float) -> np.ndarray:
    return np.array([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))])


def test_nearest_equals_scikit_learn():
    """Ten nearest by cosine, nearest first, whatever the lengths of the vectors."""
    from sklearn.neighbors import NearestNeighbors

    rng = np.random.default_rng(0)
    queries, pool = rng.normal(size=(7, 5)) * 9, rng.normal(size=(50, 5))
    expected = NearestNeighbors(n_neighbors=NEAREST, metric="cosine").fit(pool).kneighbors(queries)[1]
    np.testing.assert_array_equal(nearest(queries, pool), expected)


@pytest.mark.parametrize(("gap", "changed"), [(0, 0.0), (3, 0.3), (10, 1.0)])
def test_the_score_is_the_share_of_results_that_change(gap, changed):
    """Pool texts lie a degree apart; a query that moves by three degrees changes three of its ten results."""
    pool = tuple(Text(f"n{number} there") for number in range(60))
    rows: Any = (
        *pool,
        Pair("gender", "now m1", "now f1", "t1"),
        Pair("gender", "then m2", "then m2"),
        Pair("age", "m3", "f3"),
    )
    part = Part(Material.from_rows(rows), {})

    def place(text: str) -> np.ndarray:
        number = int("".join(sign for sign in text if sign.isdigit()))
        return angle(number) if text.startswith("n") and "there" in text else angle(20.4 + gap * ("f" in text))

    items = SWAP.items(part, "gender")
    scores = SWAP.score(Placed(place), items)
    assert items.clusters == ("t1", "then m2")
    np.testing.assert_allclose(scores[:, 0], [changed, 0.0], atol=1e-12)
    weights = np.array([[1.0, 1.0], [3.0, 1.0], [0.0, 0.0]])
    np.testing.assert_allclose(SWAP.figure(items, scores, weights), [changed / 2, 0.75 * changed, np.nan])


def test_queries_are_made_of_this_parts_persons():
    """Each person of the part stands in the templates with an attribute, one text a group, and clusters by words."""
    part = planted_part(range(5), range(4))
    items = SWAP.items(part, "gender")
    assert len(items) == 10
    assert len(set(items.clusters)) == 5
    male, female = items.content[0].texts
    assert male.replace("m0", "f0") == female
    assert all(query.pool is items.content[0].pool for query in items.content)
    assert {f"Here is {word}." for word in ("a0", "b3")} <= set(items.content[0].pool)


def test_what_cannot_be_searched_is_said():
    """No pool, no axis, and no words are reasons, not figures."""
    assert isinstance(SWAP.items(Part(Material(), {}), "gender"), Missing)
    assert isinstance(SWAP.items(planted_part(), "age"), Missing)
    assert isinstance(STEREOTYPE.items(planted_part(), "age"), Missing)
    assert isinstance(STEREOTYPE.items(planted_part(attributes=range(4)), "gender"), Missing)


@pytest.mark.parametrize(("lean", "expected"), [(1, 1.0), (-1, -1.0), (0, 0.0)])
def test_results_that_follow_prejudice_are_above_zero(lean, expected):
    """Where each group finds what prejudice ties to it the figure is 1, the reverse is -1, and what both find alike
    is 0.
    """

    def place(text: str) -> np.ndarray:
        words = text.casefold().replace(".", "").split()
        side = (
            {"m": 1, "a": 1, "f": -1, "b": -1}[
                next(word[0] for word in words if word[0] in "mfab" and word[1:].isdigit())
            ]
            if any(word[0] in "mfab" and word[1:].isdigit() for word in words)
            else 0
        )
        query = any(word[0] in "mf" and word[1:].isdigit() for word in words)
        tail = 0.001 * (len(text) + sum(map(ord, text)) % 97)
        return (
            np.array([side * (lean if query else 1), 1.0, tail if side == 0 else 0.0])
            if side
            else np.array([0.0, 0.1, 1.0])
        )

    part = planted_part(range(6), range(12))
    items = STEREOTYPE.items(part, "gender")
    scores = STEREOTYPE.score(Placed(place), items)
    assert set(items.groups) == {"male", "female"}
    shown = STEREOTYPE.by_group(items, scores, np.ones((1, len(items))))
    assert STEREOTYPE.figure(items, scores, np.ones((1, len(items))))[0] == pytest.approx(expected)
    assert shown["male"][0] + shown["female"][0] == pytest.approx(2 * expected)


def test_groups_count_alike_whatever_their_weights():
    """The figure is the mean of both groups' means, not of all queries."""
    items = STEREOTYPE.items(planted_part(range(6), range(12)), "gender")
    male = np.array([group == "male" for group in items.groups])
    scores = np.where(male, 0.4, -0.2)[:, None]
    weights = np.where(male, 5.0, 1.0)[None]
    assert STEREOTYPE.figure(items, scores, weights)[0] == pytest.approx(0.1)
    assert np.isnan(STEREOTYPE.figure(items, scores, male.astype(float)[None])[0])


def test_a_planted_direction_shows_and_its_removal_does_not():
    """On vectors with a group direction the figure is high; without that direction it is near 0."""
    rng = np.random.default_rng(5)
    base: dict[str, np.ndarray] = {}

    def place(text: str, keep: float) -> np.ndarray:
        vector = base.setdefault(text, rng.normal(size=12))
        words = text.casefold().replace(".", "").split()
        lean = sum(
            {"m": 1, "a": 1, "f": -1, "b": -1}[word[0]] for word in words if word[0] in "mfab" and word[1:].isdigit()
        )
        return np.append(vector, 2.5 * keep * lean)

    items = STEREOTYPE.items(planted_part(range(30), range(12)), "gender")
    figures = [
        STEREOTYPE.figure(
            items, STEREOTYPE.score(Placed(lambda text, k=keep: place(text, k)), items), np.ones((1, len(items)))
        )[0]
        for keep in (1.0, 0.0)
    ]
    assert figures[0] > 0.5
    assert abs(figures[1]) < 0.1


def test_the_pool_has_no_text_of_the_axis():
    """A user's text that names a group is no neutral document."""
    part = planted_part(rows=(Text("m1 was there"), Text("all was there")))
    pool = SWAP.items(part, "gender").content[0].pool
    assert "all was there" in pool
    assert "m1 was there" not in pool
    assert replace(part, lexicons={}).rows.of(Text)[0].text == "m1 was there"
