# SPDX-License-Identifier: Apache-2.0
"""Measures and scores whose truth is known: what `benchmarks/debias_gate.py` and tests of the statistics draw from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from cloister_workers.trainer.debias.kinds import FloatArray, IntArray, ModelKind, Scale
from cloister_workers.trainer.debias.measure import Items, Missing

KINDS = frozenset({ModelKind.CLASSIFIER})


# ---------------------------------------------------------------- measures whose scores are made up
def share(scores: FloatArray, weights: FloatArray) -> FloatArray:
    """Weighted means of scores [n] under weights [b, n]."""
    means: FloatArray = (weights @ scores) / weights.sum(axis=1)
    return means


@dataclass
class Mean:
    """Mean of scores [n, 1]: a flip rate, a mean difference of log-likelihoods, a share of pairs."""

    name: str
    binary: bool = False
    signed: bool = False
    ideal: float = 0.0
    scale: Scale = Scale.SHARE
    title: str = ""
    source: str = "simulated"
    extrinsic: bool = True
    kinds: frozenset[ModelKind] = KINDS

    def items(self, part: Any, axis: str) -> Missing:  # noqa: ANN401
        return Missing("scores are made up")

    def score(self, subject: Any, items: Items) -> FloatArray:  # noqa: ANN401
        raise AssertionError("scores are made up; no model is asked")

    def figure(self, items: Items, scores: FloatArray, weights: FloatArray) -> FloatArray:
        unit = 100.0 if self.scale is Scale.POINTS else 1.0
        return share(scores[:, 0], weights) * unit

    def by_group(self, items: Items, scores: FloatArray, weights: FloatArray) -> Mapping[str, FloatArray]:
        return {}


@dataclass
class Gap(Mean):
    """Largest difference of the means of groups: demographic parity of 0/1 decisions."""

    def figure(self, items: Items, scores: FloatArray, weights: FloatArray) -> FloatArray:
        rates = self._rates(items, scores, weights)
        gap: FloatArray = rates.max(axis=1) - rates.min(axis=1)
        return gap

    def differences(self, items: Items, scores: FloatArray, weights: FloatArray) -> FloatArray:
        rates = self._rates(items, scores, weights)
        first, second = np.triu_indices(rates.shape[1], 1)
        gaps: FloatArray = rates[:, first] - rates[:, second]
        return gaps

    def cells(self, items: Items, scores: FloatArray) -> FloatArray:
        groups = np.asarray(items.groups)
        return np.where(groups[None, :] == np.unique(groups)[:, None], 1.0, 0.0)

    def _rates(self, items: Items, scores: FloatArray, weights: FloatArray) -> FloatArray:
        member = self.cells(items, scores).T
        with np.errstate(invalid="ignore"):
            rates: FloatArray = (weights @ (member * scores[:, :1])) / (weights @ member)
        return rates


@dataclass
class Parted(Mean):
    """Mean of the signed means of groups, which could cancel: association over several tests."""

    def figure(self, items: Items, scores: FloatArray, weights: FloatArray) -> FloatArray:
        mean: FloatArray = np.mean(list(self.parts(items, scores, weights).values()), axis=0)
        return mean

    def parts(self, items: Items, scores: FloatArray, weights: FloatArray) -> Mapping[str, FloatArray]:
        groups = np.asarray(items.groups)
        with np.errstate(invalid="ignore"):
            return {name: share(scores[:, 0], weights * (groups == name)) for name in np.unique(groups).tolist()}

    def members(self, items: Items) -> Mapping[str, FloatArray]:
        groups = np.asarray(items.groups)
        return {name: np.where(groups == name, 1.0, 0.0) for name in np.unique(groups).tolist()}


@dataclass
class Right:
    """Accuracy: scores [n, 1] of right and wrong."""

    name: str = "accuracy"
    title: str = ""
    kinds: frozenset[ModelKind] = KINDS
    scale: Scale = Scale.SHARE
    higher_is_better: bool = True
    binary: bool = True
    source: str = "simulated"

    def items(self, part: Any) -> Missing:  # noqa: ANN401
        return Missing("scores are made up")

    def score(self, subject: Any, items: Items) -> FloatArray:  # noqa: ANN401
        raise AssertionError("scores are made up; no model is asked")

    def level(self, items: Items, scores: FloatArray, weights: FloatArray) -> FloatArray:
        return share(scores[:, 0], weights)

    def loss(self, items: Items, before: FloatArray, after: FloatArray, weights: FloatArray) -> FloatArray:
        return self.level(items, before, weights) - self.level(items, after, weights)


FLIP = Mean("flip_rate", binary=True)
GAP = Gap("demographic_parity")
DELTA = Mean("pair_preference", signed=True, scale=Scale.NATS)
PARTS = Parted("pair_preference", signed=True, scale=Scale.NATS)
CROWS = Mean("crows_pll_nangia", binary=True, signed=True, ideal=50.0, scale=Scale.POINTS)
BBQ = Mean("bbq_ambiguous", signed=True, scale=Scale.POINTS)
STEREOSET = Mean("stereoset", signed=True, ideal=50.0, scale=Scale.POINTS)
RIGHT = Right()


# ---------------------------------------------------------------- scores
@dataclass(frozen=True)
class Shape:
    """How many clusters, items in each, groups that the clusters are dealt to, and how alike items of a cluster are."""

    clusters: int
    size: int = 1
    groups: int = 1
    alike: float = 0.0

    @property
    def index(self) -> IntArray:
        """Cluster of each item."""
        return np.repeat(np.arange(self.clusters), self.size)

    @property
    def group(self) -> IntArray:
        """Group of each item."""
        return self.index % self.groups

    def items(self) -> Items:
        names = tuple(f"c{number}" for number in self.index)
        return Items(names, names, tuple(f"g{number}" for number in self.group))


Pair = tuple[FloatArray, FloatArray]
Draw = Callable[[np.random.Generator], Pair]


def latent(shape: Shape, random: np.random.Generator) -> FloatArray:
    """Standard normal, `alike` of the variance shared within clusters."""
    shared = random.normal(size=shape.clusters)[shape.index] * float(np.sqrt(shape.alike))
    own = random.normal(size=len(shape.index))
    return shared + own * float(np.sqrt(1 - shape.alike))


def rates(shape: Shape, before: list[float], after: list[float], tie: float) -> Draw:
    """0/1 scores with a rate for each group, before and after tied with correlation `tie` (of normal variables)."""
    cut = [stats.norm.ppf(np.asarray(shares))[shape.group] for shares in (before, after)]

    def draw(random: np.random.Generator) -> Pair:
        first, other = latent(shape, random), latent(shape, random)
        second = tie * first + np.sqrt(1 - tie**2) * other
        return (first < cut[0]).astype(np.float64)[:, None], (second < cut[1]).astype(np.float64)[:, None]

    return draw


def rare(shape: Shape, before: float, rest: float, kind: float) -> Draw:
    """0/1 scores with the rate `before`, then `rest`, but 1 in all items of a cluster with chance `kind`."""

    def draw(random: np.random.Generator) -> Pair:
        first = random.random(len(shape.index)) < before
        second = random.random(len(shape.index)) < rest
        second |= (random.random(shape.clusters) < kind)[shape.index]
        return first.astype(np.float64)[:, None], second.astype(np.float64)[:, None]

    return draw


Level = float | tuple[float, ...]
"""A mean, or one for each group."""


def deltas(shape: Shape, before: Level, after: Level, tie: float, *, skewed: bool = False) -> Draw:
    """Scores with mean `before` and `after` and standard deviation 1, normal or exponential."""
    start, end = (np.broadcast_to(np.asarray(level), shape.groups)[shape.group] for level in (before, after))

    def draw(random: np.random.Generator) -> Pair:
        first, other = latent(shape, random), latent(shape, random)
        second = tie * first + np.sqrt(1 - tie**2) * other
        if skewed:
            first, second = (-np.log(stats.norm.sf(values)) - 1 for values in (first, second))
        return (start + first)[:, None], (end + second)[:, None]

    return draw
