# SPDX-License-Identifier: Apache-2.0
"""Whether a classifier decides otherwise when nothing but the group changes in a text.

    flip_rate        share of texts x with f(x) != f(swap(x)); 0 to 1
    token_fairness   mean |l(x) - l(swap(x))|, in nats; l is the log-odds of the class that is decided for x:
                     log p - log(1 - p), which for two classes is the difference of the logits

0 means no bias and lower is better. Texts are the labelled rows of the test part, swapped with that part's own words
and function words by `swapping.Swapper`, and the rows of kind `pair` as they stand. The first text of a pair is x.
Texts that cannot be swapped are left out and counted by reason: those without a term, those that speak of two axes,
and asymmetric ones, where the other group would make the text false or odd (medical facts, words without a
counterpart). Swapping on a third or further group draws one counterpart for each text.

Source: Garg et al. 2019, arXiv:1809.10610 (counterfactual token fairness: the gap, asymmetric pairs left out).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from cloister_workers.trainer.debias.kinds import FloatArray, ModelKind, Scale
from cloister_workers.trainer.debias.labelled import DecidesByGroup, cluster_of, decided, ratio
from cloister_workers.trainer.debias.material import Part
from cloister_workers.trainer.debias.measure import Items, Missing, SubFigure
from cloister_workers.trainer.debias.shapes import Labelled, Pair
from cloister_workers.trainer.debias.subfigures import in_group
from cloister_workers.trainer.debias.subjects import Classifies
from cloister_workers.trainer.debias.swapping import NotSwapped, Swapper

Both = tuple[Labelled, Labelled]
"""A row, and the row that says the same of the other group."""


@dataclass(frozen=True)
class _Swapped:
    """What both have in common: rows with their counterparts."""

    name: str
    title: str
    scale: Scale
    binary: bool
    source: str = "Garg et al. 2019, arXiv:1809.10610"
    kinds: frozenset[ModelKind] = frozenset({ModelKind.CLASSIFIER})
    ideal: float = 0.0
    signed: bool = False
    extrinsic: bool = True

    def items(self, part: Part, axis: str) -> Items | Missing:
        both, left_out = _counterparts(part, axis)
        both += [_of_pair(row) for row in part.rows.of(Pair) if row.axis == axis]
        if not both:
            return Missing("no labelled row with a term of the axis that can be swapped, and no pair")
        return Items(
            content=tuple(both),
            clusters=tuple(cluster_of(row) for row, _ in both),
            groups=tuple(row.groups.get(axis, "not stated") for row, _ in both),
            left_out=left_out,
            texts=tuple((row.text, other.text) for row, other in both),
        )

    def figure(self, items: Items, scores: FloatArray, weights: FloatArray) -> FloatArray:
        return ratio(weights @ scores[:, 0], weights.sum(axis=1))

    def by_group(self, items: Items, scores: FloatArray, weights: FloatArray) -> Mapping[str, FloatArray]:
        found: dict[str, FloatArray] = {}
        for group in sorted(set(items.groups)):
            mine = weights * (np.array(items.groups) == group)
            found[group] = self.figure(items, scores, mine)
        return found

    def subfigures(self, items: Items, scores: FloatArray) -> Mapping[str, SubFigure]:
        return {
            group: SubFigure(self.scale, self.ideal, in_group(items, group), self.signed) for group in set(items.groups)
        }


@dataclass(frozen=True)
class FlipRate(_Swapped):
    """1 where the decision changes."""

    def score(self, subject: Classifies | DecidesByGroup, items: Items) -> FloatArray:
        first = decided(subject, [row for row, _ in items.content])
        second = decided(subject, [row for _, row in items.content])
        return np.asarray(first != second, dtype=np.float64)[:, None]


@dataclass(frozen=True)
class TokenFairness(_Swapped):
    """How far the log-odds of the decision move."""

    def score(self, subject: Classifies, items: Items) -> FloatArray:
        first = subject.logits([row.text for row, _ in items.content])
        second = subject.logits([row.text for _, row in items.content])
        chosen = first.argmax(axis=1)
        return np.abs(_log_odds(first, chosen) - _log_odds(second, chosen))[:, None]


def _counterparts(part: Part, axis: str) -> tuple[list[Both], Mapping[str, int]]:
    """Labelled rows that can be swapped with their counterparts, and how many cannot, by reason."""
    rows = part.rows.of(Labelled)
    if axis not in part.lexicons:
        return [], {"no word list of the axis": len(rows)} if rows else {}
    swapper = Swapper(part.lexicons)
    both: list[Both] = []
    left_out: Counter[str] = Counter()
    for row in rows:
        swapped = swapper.swap(row.text, axis)
        if isinstance(swapped, NotSwapped):
            left_out[str(swapped.reason)] += 1
        else:
            both.append((row, _regrouped(row, swapped.text, axis, swapped.group_from, swapped.group_to)))
    return both, dict(sorted(left_out.items()))


def _regrouped(row: Labelled, text: str, axis: str, source: str, target: str) -> Labelled:
    """The row with the other text; a person of one of the two groups changes to the other."""
    exchange = {source: target, target: source}
    stated = row.groups.get(axis, "")
    return replace(row, text=text, groups={**row.groups, axis: exchange.get(stated, stated)})


def _of_pair(row: Pair) -> Both:
    first = Labelled(text=row.first, label="", template=row.template)
    return first, replace(first, text=row.second)


def _log_odds(logits: FloatArray, chosen: np.ndarray[tuple[int], np.dtype[np.int64]]) -> FloatArray:
    """Log p - log(1 - p) of the chosen class: float64 [n]."""
    places = np.arange(len(logits))
    rest = logits.copy()
    rest[places, chosen] = -np.inf
    odds: FloatArray = logits[places, chosen] - np.logaddexp.reduce(rest, axis=1)
    return odds


MEASURES = (
    FlipRate("flip_rate", "Counterfactual flip rate", Scale.SHARE, binary=True),
    TokenFairness("token_fairness", "Counterfactual token fairness gap", Scale.NATS, binary=False),
)
