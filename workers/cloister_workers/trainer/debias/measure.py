# SPDX-License-Identifier: Apache-2.0
"""What a measure of bias, and a measure of utility, answer to.

A measure is split in three so that one run of the model serves every statistic: `items` chooses what is looked at,
`score` asks the model once for each item, and `figure` turns scores and weights into a number. The bootstrap calls
`figure` with thousands of weights and never the model. Scores before and after stand in the same order, so a
difference of figures under equal weights is a paired one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from cloister_workers.trainer.debias.kinds import FloatArray, ModelKind, Scale
from cloister_workers.trainer.debias.material import Part


@dataclass(frozen=True)
class Items:
    """n things that a measure looks at, in a fixed order."""

    content: tuple[Any, ...]
    clusters: tuple[str, ...]
    """The independent unit of each item: word, template, person, document. The bootstrap draws whole clusters."""
    groups: tuple[str, ...] = ()
    """The group of each item; empty where the measure has none."""
    left_out: Mapping[str, int] = field(default_factory=dict)
    """How many things were not looked at, by reason in fixed words; shown in the report, never dropped silently."""
    texts: tuple[tuple[str, ...], ...] = ()
    """What the model reads of each item, without what all items have in common; empty where the measure does not say,
    and then nobody can tell which words it shares with the mitigation."""
    overlap: tuple[bool, ...] = ()
    """Whether an item names a word or name that was at hand to mitigate with (`crossing`); empty where not told."""

    def __len__(self) -> int:
        return len(self.content)


@dataclass(frozen=True)
class Missing:
    """Why a measure cannot be taken; shown in the report, never dropped silently."""

    why: str
    """Fixed words, for example `no rows of kind crows_pairs`."""
    by_nature: bool = False
    """Whether no material could change it: the measure does not take such an axis or language."""


class Measure(Protocol):
    """A measure of bias. One figure for each axis; `ideal` means no bias."""

    name: str
    """As in the spec; lower case with underscores."""
    title: str
    kinds: frozenset[ModelKind]
    ideal: float
    scale: Scale
    signed: bool
    """Whether the figure tells a direction, so that over-correction shows on its other side."""
    extrinsic: bool
    """Whether it is taken on the model's task rather than on its insides."""
    binary: bool
    """Whether the figure is a weighted mean of 0/1 scores, which then get an exact interval as well."""
    source: str
    """Paper or specification of the definition."""

    def items(self, part: Part, axis: str) -> Items | Missing:
        """What is looked at on `axis`; the same for the same part."""
        ...

    def score(self, subject: Any, items: Items) -> FloatArray:  # noqa: ANN401 - the subject of one of `kinds`
        """Ask the model: float64 [n, k], k as `figure` needs it."""
        ...

    def figure(self, items: Items, scores: FloatArray, weights: FloatArray) -> FloatArray:
        """The figure under each row of `weights` (float64 [b, n], not negative): float64 [b]; NaN where a draw has
        nothing to compute it from. An item of weight 0 is as good as not there, and items may come twice: the
        permutation test lays those before beside those after.
        """
        ...

    def by_group(self, items: Items, scores: FloatArray, weights: FloatArray) -> Mapping[str, FloatArray]:
        """Figures of single groups (or parts of the figure) for the report, name to float64 [b]; may be empty."""
        ...


@dataclass(frozen=True)
class SubFigure:
    """How to read one figure of `by_group`."""

    scale: Scale
    ideal: float | None
    """None where it has none of its own: those of the groups are to be alike."""
    items: FloatArray
    """The items behind it: 0/1 [n]."""
    signed: bool = False
    """As that of a measure."""


@runtime_checkable
class TellsGroups(Protocol):
    """What a measure adds whose figures in `by_group` are not all on its scale, or are taken from other items than
    those of the group they are named after.
    """

    def subfigures(self, items: Items, scores: FloatArray) -> Mapping[str, SubFigure]:
        """How to read the figures of `by_group`, by their names."""
        ...


@runtime_checkable
class Compares(Protocol):
    """What a measure adds whose figure is as far from its ideal as the largest of several differences of rates.

    Such a figure has a kink where it is small, and says 0 of small groups too easily: the statistics look behind it.
    """

    def differences(self, items: Items, scores: FloatArray, weights: FloatArray) -> FloatArray:
        """The differences, with their signs: float64 [b, m]; the largest absolute one is |figure - ideal|. NaN
        for one that cannot be taken.
        """
        ...

    def cells(self, items: Items, scores: FloatArray) -> FloatArray:
        """The items behind each rate that is compared, for example those of a group and a label: 0/1 [c, n]."""
        ...


@runtime_checkable
class HasParts(Protocol):
    """What a measure adds whose figure is a mean of signed figures, in which opposite ones would cancel."""

    def parts(self, items: Items, scores: FloatArray, weights: FloatArray) -> Mapping[str, FloatArray]:
        """The figures behind the mean (tests, blocks), each on the scale and with the ideal of `figure`: name to
        float64 [b], NaN where a draw has nothing to compute one from. The gate holds every one of them to the bar.
        """
        ...

    def members(self, items: Items) -> Mapping[str, FloatArray]:
        """The items behind each part: 0/1 [n], by the same names."""
        ...


@runtime_checkable
class Permutes(Protocol):
    """What a measure adds for which a permutation test is published: shown in the report, never judged."""

    def permutation(self, items: Items, scores: FloatArray, seed: int) -> Mapping[str, float]:
        """Two-sided p of each test, by name: of no difference between the groups at all."""
        ...


class Utility(Protocol):
    """A measure of what must not be lost."""

    name: str
    title: str
    kinds: frozenset[ModelKind]
    scale: Scale
    higher_is_better: bool
    binary: bool
    """Whether the level is a weighted mean of right and wrong, of which a bootstrap can see too few."""
    source: str

    def items(self, part: Part) -> Items | Missing: ...

    def score(self, subject: Any, items: Items) -> FloatArray:  # noqa: ANN401
        """float64 [n, k]."""
        ...

    def level(self, items: Items, scores: FloatArray, weights: FloatArray) -> FloatArray:
        """The figure itself, for the report: float64 [b]. NaN where only the loss means something."""
        ...

    def loss(self, items: Items, before: FloatArray, after: FloatArray, weights: FloatArray) -> FloatArray:
        """How much was lost from before to after, in the unit of the gate's margin; below 0 is a gain: [b]."""
        ...
