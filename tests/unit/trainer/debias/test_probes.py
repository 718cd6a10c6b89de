# SPDX-License-Identifier: Apache-2.0
"""Probes on vectors in which the group is planted linearly, non-linearly, or not at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from cloister_workers.trainer.debias.material import Material, Part
from cloister_workers.trainer.debias.measure import Missing
from cloister_workers.trainer.debias.measures.probes import MEASURES
from tiny_encoder import planted_part

LINEAR: Any
NONLINEAR: Any
LINEAR, NONLINEAR = MEASURES


@dataclass
class Planted:
    """Vectors of noise with a mark of the group: on a line, on a circle, or none."""

    how: str

    def embed(self, texts) -> np.ndarray:
        found = []
        for text in texts:
            rng = np.random.default_rng(list(text.encode()))
            word = next(
                word for word in text.casefold().replace(".", "").split() if word[0] in "mf" and word[1:].isdigit()
            )
            vector, male = rng.normal(size=6), word[0] == "m"
            if self.how == "line":
                vector[0] += 8 * male
            elif self.how == "circle":
                turn = rng.uniform(0, 2 * np.pi)
                vector[:2] = (1 + 4 * male) * np.array([np.cos(turn), np.sin(turn)])
            found.append(vector)
        return np.array(found)


def taken(probe, how: str) -> float:
    items = probe.items(planted_part(), "gender")
    return float(probe.figure(items, probe.score(Planted(how), items), np.ones((1, len(items))))[0])


@pytest.mark.parametrize(
    ("how", "linear", "nonlinear"), [("line", True, True), ("circle", False, True), ("none", False, False)]
)
def test_each_probe_reads_what_it_can(how, linear, nonlinear):
    """A group on a line is read by both, on a circle by the non-linear probe alone, and noise by neither."""
    for probe, reads in ((LINEAR, linear), (NONLINEAR, nonlinear)):
        above = taken(probe, how)
        assert (above > 0.4) if reads else (abs(above) < 0.15)


def test_words_of_a_set_are_learned_and_asked_together():
    """An encoder that knows each word by heart, but no group, cannot be read: its words are never in both halves."""

    class ByHeart:
        def embed(self, texts) -> np.ndarray:
            keys = [text.casefold().replace(".", "").split() for text in texts]
            words = [next(word for word in key if word[0] in "mf" and word[1:].isdigit()) for key in keys]
            return np.stack([np.random.default_rng(list(word.encode())).normal(size=40) for word in words])

    items = LINEAR.items(planted_part(), "gender")
    scores = LINEAR.score(ByHeart(), items)
    assert abs(LINEAR.figure(items, scores, np.ones((1, len(items))))[0]) < 0.2
    assert len(set(items.clusters)) == 30


def test_the_figure_is_balanced_accuracy_less_chance():
    """It is scikit-learn's balanced accuracy, adjusted to chance by subtraction, under weights too."""
    from sklearn.metrics import balanced_accuracy_score

    items = LINEAR.items(planted_part(), "gender")
    rng = np.random.default_rng(0)
    right, weights = rng.random(len(items)) < 0.7, rng.integers(0, 3, len(items)).astype(float)
    true = np.array([group == "male" for group in items.groups])
    expected = balanced_accuracy_score(true, np.where(right, true, ~true), sample_weight=weights) - 0.5
    assert LINEAR.figure(items, right.astype(float)[:, None], weights[None])[0] == pytest.approx(expected)


def test_few_words_are_not_probed():
    """Fewer than ten sets of words, or no list, are a reason and no figure."""
    assert isinstance(LINEAR.items(planted_part(range(9)), "gender"), Missing)
    assert isinstance(LINEAR.items(Part(Material(), {}), "gender"), Missing)
