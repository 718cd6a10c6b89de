# SPDX-License-Identifier: Apache-2.0
"""How far the decisions of a classifier differ between groups.

    demographic_parity   largest minus smallest P(decision = c | group)
    equalized_odds       the larger of: largest minus smallest P(decision = c | label = c, group), and the same of
                         P(decision = c | label is not c, group)
    worst_group_gap      accuracy of the group where it is highest minus that of the group where it is lowest
    impact_ratio         smallest over largest P(decision = c | group)

The first three are shares from 0 (no bias, ideal) to 1; lower is better. The ratio is 1 where it is ideal and at least
0.8 under the rule of four fifths (New York City, Local Law 144 of 2021, "impact ratio"; 29 CFR 1607.4 D).
Which class means to be selected nobody has said, so the ratio is taken for each and the smallest is the figure: unlike
the difference it is not the same for both of two classes. Parity, odds and ratio are taken for each class c against the
rest and the farthest off is the figure; with two classes both differences are the same number, so no class has to be
called the positive one. Sources: fairlearn 0.15 (`demographic_parity_difference`, `equalized_odds_difference`,
`MetricFrame(accuracy_score).difference()`); Hardt, Price and Srebro 2016, arXiv:1610.02413.

Groups of `gender*age` are the products. No group is left out for being small: its figures stand in `by_group`, where
small numbers show as wide intervals. A group without any row of a class has no rate there and is not compared on
that rate alone. A draw that lost all rows behind a rate is NaN, because leaving the group out would flatter.

The largest minus the smallest of several noisy rates is biased upward, the more so the more and the smaller the
groups are. The gate's bar is an upper bound, so this errs on the safe side; and the statistics look at the signed
`differences` behind the figure. `by_group` shows those of each two groups (up to four groups), which have no such bias.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from cloister_workers.trainer.debias.kinds import FloatArray, ModelKind, Scale
from cloister_workers.trainer.debias.labelled import (
    DecidesByGroup,
    cluster_of,
    group_of,
    groups_of,
    halves,
    outcomes,
    ratio,
)
from cloister_workers.trainer.debias.material import Part
from cloister_workers.trainer.debias.measure import Items, Missing, SubFigure
from cloister_workers.trainer.debias.shapes import Labelled
from cloister_workers.trainer.debias.subjects import Classifies

_MOST_PAIRED = 4
_RATIO = "ratio, chosen as "


@dataclass(frozen=True)
class _Told:
    """One rate that the report shows by group: the share of `hit` [n] among the rows that `asked` [n] marks."""

    what: str
    hit: FloatArray
    asked: FloatArray
    ideal: float | None = None
    """None: the groups' are to be alike."""
    compared: bool = True
    """Whether differences between groups are shown as well."""


@dataclass(frozen=True)
class _Gap:
    """What the three have in common; scores are decisions and truths, see `labelled.outcomes`."""

    name: str
    title: str
    source: str
    kinds: frozenset[ModelKind] = frozenset({ModelKind.CLASSIFIER})
    ideal: float = 0.0
    scale: Scale = Scale.SHARE
    signed: bool = False
    extrinsic: bool = True
    binary: bool = False

    def items(self, part: Part, axis: str) -> Items | Missing:
        rows = part.rows.of(Labelled)
        stated = tuple(row for row in rows if group_of(row, axis))
        if len(groups_of(stated, axis)) < 2:
            return Missing("labelled rows state fewer than two groups")
        return Items(
            content=stated,
            clusters=tuple(cluster_of(row) for row in stated),
            groups=tuple(group_of(row, axis) for row in stated),
            left_out={"no group stated": len(rows) - len(stated)} if len(stated) < len(rows) else {},
            texts=tuple((row.text,) for row in stated),
        )

    def score(self, subject: Classifies | DecidesByGroup, items: Items) -> FloatArray:
        return outcomes(subject, items.content)

    def figure(self, items: Items, scores: FloatArray, weights: FloatArray) -> FloatArray:
        whole = self.differences(items, scores, np.ones((1, len(items))))
        possible = ~np.isnan(whole[0])
        if not possible.any():
            return np.full(len(weights), np.nan)
        largest: FloatArray = np.abs(self.differences(items, scores, weights)[:, possible]).max(axis=1)
        return largest

    def differences(self, items: Items, scores: FloatArray, weights: FloatArray) -> FloatArray:
        found = []
        for rates in self._rates(items, scores, weights).values():
            first, second = np.triu_indices(rates.shape[1], k=1)
            found.append((rates[:, first] - rates[:, second]).reshape(len(weights), -1))
        return np.concatenate(found, axis=1)

    def cells(self, items: Items, scores: FloatArray) -> FloatArray:
        return np.concatenate([_members(items).T * asked for asked in self._asked(scores)])

    def by_group(self, items: Items, scores: FloatArray, weights: FloatArray) -> Mapping[str, FloatArray]:
        found: dict[str, FloatArray] = {}
        for told in self._told(items, scores):
            rates = _rate(items, weights, told.hit[:, None], told.asked[:, None])[:, :, 0]
            found |= _single(items, told.what, rates)
            found |= _paired(items, told.what, rates) if told.compared else {}
        return found

    def subfigures(self, items: Items, scores: FloatArray) -> Mapping[str, SubFigure]:
        """Differences between two groups are to be 0."""
        found: dict[str, SubFigure] = {}
        for told in self._told(items, scores):
            cells = _members(items) * told.asked[:, None]
            single, paired = _single(items, told.what, cells), _paired(items, told.what, cells)
            found |= {name: SubFigure(Scale.SHARE, told.ideal, mask) for name, mask in single.items()}
            # No item is of both groups, so the absolute difference of their masks marks the items of either.
            found |= {name: SubFigure(Scale.SHARE, 0.0, abs(mask), signed=True) for name, mask in paired.items()}
        return found

    def _told(self, items: Items, scores: FloatArray) -> Iterator[_Told]:
        """The rates that the report shows by group. Of two classes one tells all."""
        said, _ = halves(scores)
        for place, label in _shown(items, scores):
            yield _Told(f"chosen as {label}", said[:, place], np.ones(len(said)))

    def _rates(self, items: Items, scores: FloatArray, weights: FloatArray) -> Mapping[str, FloatArray]:
        """The rates that are compared: title to float64 [b, groups, classes]."""
        raise NotImplementedError

    def _asked(self, scores: FloatArray) -> Iterable[FloatArray]:
        """The rows that each rate is taken over, before they are divided by group: 0/1 [n] each."""
        return (np.ones(len(scores)),)


@dataclass(frozen=True)
class DemographicParity(_Gap):
    """Rates at which a class is chosen."""

    def _rates(self, items: Items, scores: FloatArray, weights: FloatArray) -> Mapping[str, FloatArray]:
        said, _ = halves(scores)
        return {"chosen as": _rate(items, weights, said, np.ones_like(said))}


@dataclass(frozen=True)
class EqualizedOdds(_Gap):
    """Rates at which a class is chosen where it is right, and where it is wrong."""

    def _rates(self, items: Items, scores: FloatArray, weights: FloatArray) -> Mapping[str, FloatArray]:
        said, true = halves(scores)
        return {
            "rightly chosen as": _rate(items, weights, said, true),
            "wrongly chosen as": _rate(items, weights, said, 1 - true),
        }

    def _told(self, items: Items, scores: FloatArray) -> Iterator[_Told]:
        said, true = halves(scores)
        for title, asked in (("rightly", true), ("wrongly", 1 - true)):
            for place, label in _shown(items, scores):
                yield _Told(f"{title} chosen as {label}", said[:, place], asked[:, place])

    def _asked(self, scores: FloatArray) -> Iterable[FloatArray]:
        _, true = halves(scores)
        return (*true.T, *(1 - true.T))


@dataclass(frozen=True)
class WorstGroupGap(_Gap):
    """Accuracy. `by_group` has that of each group, and of each class in each group."""

    def _told(self, items: Items, scores: FloatArray) -> Iterator[_Told]:
        hits, (_, true) = _hits(scores)[:, 0], halves(scores)
        yield _Told("accuracy", hits, np.ones(len(hits)), ideal=1.0)
        for place, label in enumerate(_classes(items, scores)):
            yield _Told(f"accuracy on {label}", hits, true[:, place], ideal=1.0, compared=False)

    def _rates(self, items: Items, scores: FloatArray, weights: FloatArray) -> Mapping[str, FloatArray]:
        hits = _hits(scores)
        return {"accuracy": _rate(items, weights, hits, np.ones_like(hits))}


@dataclass(frozen=True)
class ImpactRatio(_Gap):
    """Smallest over largest rate at which a class is chosen; `differences` are those of two rates over the larger."""

    ideal: float = 1.0
    scale: Scale = Scale.RATIO

    def figure(self, items: Items, scores: FloatArray, weights: FloatArray) -> FloatArray:
        return 1.0 - super().figure(items, scores, weights)

    def differences(self, items: Items, scores: FloatArray, weights: FloatArray) -> FloatArray:
        rates = self._rates(items, scores, weights)["chosen as"]
        one, other = (rates[:, place] for place in np.triu_indices(rates.shape[1], k=1))
        return ratio(one - other, np.maximum(one, other)).reshape(len(weights), -1)

    def cells(self, items: Items, scores: FloatArray) -> FloatArray:
        """The rows that were chosen: what single ones among them could change is relative to their number."""
        said, _ = halves(scores)
        return np.concatenate([_members(items).T * chosen for chosen in said.T])

    def by_group(self, items: Items, scores: FloatArray, weights: FloatArray) -> Mapping[str, FloatArray]:
        rates = self._rates(items, scores, weights)["chosen as"]
        ratios = ratio(rates.min(axis=1), rates.max(axis=1))
        by_class = {_RATIO + label: ratios[:, place] for place, label in enumerate(_classes(items, scores))}
        return {**super().by_group(items, scores, weights), **by_class}

    def subfigures(self, items: Items, scores: FloatArray) -> Mapping[str, SubFigure]:
        of_all = SubFigure(Scale.RATIO, 1.0, np.ones(len(items)))
        return {**super().subfigures(items, scores), **{_RATIO + label: of_all for label in _classes(items, scores)}}

    def _told(self, items: Items, scores: FloatArray) -> Iterator[_Told]:
        said, _ = halves(scores)
        for place, label in enumerate(_classes(items, scores)):
            yield _Told(f"chosen as {label}", said[:, place], np.ones(len(said)), compared=False)

    def _rates(self, items: Items, scores: FloatArray, weights: FloatArray) -> Mapping[str, FloatArray]:
        said, _ = halves(scores)
        return {"chosen as": _rate(items, weights, said, np.ones_like(said))}


def _names(items: Items) -> tuple[str, ...]:
    return tuple(sorted(set(items.groups)))


def _hits(scores: FloatArray) -> FloatArray:
    said, true = halves(scores)
    hits: FloatArray = (said * true).sum(axis=1, keepdims=True)
    return hits


def _classes(items: Items, scores: FloatArray) -> list[str]:
    """The labels in the order of the score's columns; a class that no row bears goes by its number."""
    _, true = halves(scores)
    known = {int(place.argmax()): row.label for place, row in zip(true, items.content, strict=True) if place.any()}
    return [known.get(number, f"class {number + 1}") for number in range(true.shape[1])]


def _rate(items: Items, weights: FloatArray, hit: FloatArray, asked: FloatArray) -> FloatArray:
    """Weighted share of `hit` [n, c] among the rows that `asked` [n, c] marks, by group: [b, groups, c]."""
    member = _members(items)
    return ratio(_summed(weights, member, hit * asked), _summed(weights, member, asked))


def _members(items: Items) -> FloatArray:
    """Which row is of which group: 0/1 [n, groups]."""
    member: FloatArray = (np.array(items.groups)[:, None] == np.array(_names(items))[None, :]).astype(np.float64)
    return member


def _summed(weights: FloatArray, member: FloatArray, values: FloatArray) -> FloatArray:
    cells = member[:, :, None] * values[:, None, :]
    return (weights @ cells.reshape(len(cells), -1)).reshape(len(weights), *cells.shape[1:])


def _shown(items: Items, scores: FloatArray) -> list[tuple[int, str]]:
    """Column and name of the classes, of two the last alone."""
    classes = list(enumerate(_classes(items, scores)))
    return classes[1:] if len(classes) == 2 else classes


def _single(items: Items, what: str, values: FloatArray) -> dict[str, FloatArray]:
    """Values [b, groups] by name."""
    return {f"{group}: {what}": values[:, number] for number, group in enumerate(_names(items))}


def _paired(items: Items, what: str, values: FloatArray) -> dict[str, FloatArray]:
    """Differences of values [b, groups] of each two groups, by name."""
    names = _names(items)
    if len(names) > _MOST_PAIRED:
        return {}
    return {
        f"{names[one]} minus {names[other]}: {what}": values[:, one] - values[:, other]
        for one, other in combinations(range(len(names)), 2)
    }


_SOURCE = "fairlearn 0.15, "
MEASURES = (
    DemographicParity("demographic_parity", "Demographic parity difference", _SOURCE + "demographic_parity_difference"),
    EqualizedOdds(
        "equalized_odds",
        "Equalised odds difference",
        _SOURCE + "equalized_odds_difference; Hardt, Price and Srebro 2016, arXiv:1610.02413",
    ),
    WorstGroupGap(
        "worst_group_gap",
        "Accuracy, best group minus worst group",
        _SOURCE + "MetricFrame(accuracy_score).difference()",
    ),
    ImpactRatio(
        "impact_ratio",
        "Impact ratio of being chosen",
        _SOURCE + "demographic_parity_ratio; New York City, Local Law 144 of 2021",
    ),
)
