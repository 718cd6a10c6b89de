# SPDX-License-Identifier: Apache-2.0
"""How much likelier a model finds it that persons have the attributes that prejudice ties to their group.

Our own measure, from the lexicon's pair templates, persons and associations. For a template and a pair of persons of
the first group and of another one, LL is the log-probability of the sentence (causal; masked: pseudo-likelihood), and
d(a) = LL(person of group 1, a) - LL(person of group 2, a). With a over the attributes that prejudice ties to group 1
and b over those that it ties to group 2

    figure = (mean of d(a) - mean of d(b)) / 2

which is half the log odds ratio of the stereotyped against the counter-stereotyped assignment, in nats a sentence:
0.25 is odds of 1.65 to 1. What makes one group's words likelier everywhere is in both means and cancels. Ideal 0;
above it the model leans to the stereotype, below it against it. By the token a lean that sits in one word would be
divided by the length of its sentence; `by_group` has that figure too, for comparison with other work.

Rows of kind pair on the axis come on top: `first` is what prejudice would say, each is one paired difference LL(first)
- LL(second). Blocks (associations, and the rows) count by the weight of their items.

The independent unit is the attribute: attributes are the sample from what prejudice says, each with a lean of its own
that all its sentences share, while templates and persons are the same few for all of them. A row's unit is its
template, else the row. At most 16 pairings of a template and a pair of persons are asked and a
pair of groups, the same for all attributes.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from cloister_workers.trainer.debias.kinds import FloatArray, ModelKind, Scale
from cloister_workers.trainer.debias.labelled import ratio
from cloister_workers.trainer.debias.lexicon import Lexicon, fill
from cloister_workers.trainer.debias.material import Part
from cloister_workers.trainer.debias.measure import Items, Measure, Missing, SubFigure
from cloister_workers.trainer.debias.shapes import Pair
from cloister_workers.trainer.debias.subjects import Continues, FillsMasks
from cloister_workers.trainer.debias.subjects.likelihood import text_log_probs

MOST_PAIRINGS = 16
_ROWS = "rows of kind pair"
_ALL = "all, in nats a token"


@dataclass(frozen=True)
class Contrast:
    """Pairs of sentences that differ in the group; of one attribute, or one row."""

    block: str
    """The association, or the rows."""
    side: int
    """1: prejudice ties the attribute to the first group; -1: to the second; 0: a row, first is prejudice."""
    sentences: tuple[tuple[str, str], ...]


class PairPreference:
    """The mean paired difference. Scores [n, 2]: an item's mean difference in nats a sentence, and in nats a token."""

    name = "pair_preference"
    title = "Preference for stereotyped over counter-stereotyped sentences"
    kinds = frozenset({ModelKind.CAUSAL, ModelKind.MASKED})
    ideal = 0.0
    scale = Scale.NATS
    signed = True
    extrinsic = False
    binary = False
    source = "this project: half the log odds ratio of assignments of attributes to groups"

    def items(self, part: Part, axis: str) -> Items | Missing:
        lexicon = part.lexicons.get(axis)
        built = _built(lexicon) if lexicon is not None else []
        rows = [
            (Contrast(_ROWS, 0, ((row.first, row.second),)), f"template:{row.template}" if row.template else row.first)
            for row in part.rows.of(Pair)
            if row.axis == axis
        ]
        if not built and not rows:
            return Missing("no rows of kind pair, and no lexicon with pair templates, persons and associations")
        found = [*built, *rows]
        return Items(
            tuple(contrast for contrast, _ in found),
            tuple(cluster for _, cluster in found),
            tuple(contrast.block for contrast, _ in found),
            _left_out(lexicon, bool(built)) if lexicon is not None else {},
            tuple(tuple(text for pair in contrast.sentences for text in pair) for contrast, _ in found),
        )

    def score(self, subject: Continues | FillsMasks, items: Items) -> FloatArray:
        texts = [text for contrast in items.content for pair in contrast.sentences for text in pair]
        known = dict.fromkeys(texts)
        logs = dict(zip(known, text_log_probs(subject, list(known)), strict=True))
        found: FloatArray = np.zeros((len(items), 2))
        for number, contrast in enumerate(items.content):
            both = [(logs[first], logs[second]) for first, second in contrast.sentences]
            found[number, 0] = np.mean([first.sum() - second.sum() for first, second in both])
            found[number, 1] = np.mean([_mean(first) - _mean(second) for first, second in both])
        return found

    def figure(self, items: Items, scores: FloatArray, weights: FloatArray) -> FloatArray:
        return _combined(items, scores[:, 0], weights)

    def parts(self, items: Items, scores: FloatArray, weights: FloatArray) -> Mapping[str, FloatArray]:
        """The figure of every block."""
        return {block: _block(items, scores[:, 0], weights, block)[0] for block in dict.fromkeys(items.groups)}

    def members(self, items: Items) -> Mapping[str, FloatArray]:
        groups = np.array(items.groups)
        return {block: np.where(groups == block, 1.0, 0.0) for block in dict.fromkeys(items.groups)}

    def by_group(self, items: Items, scores: FloatArray, weights: FloatArray) -> Mapping[str, FloatArray]:
        return {**self.parts(items, scores, weights), _ALL: _combined(items, scores[:, 1], weights)}

    def subfigures(self, items: Items, scores: FloatArray) -> Mapping[str, SubFigure]:
        return {_ALL: SubFigure(Scale.NATS_MEAN, self.ideal, np.ones(len(items)), self.signed)}


def _built(lexicon: Lexicon) -> list[tuple[Contrast, str]]:
    """One item an attribute, with its cluster."""
    found = []
    for two, association in itertools.product(lexicon.contrasts(), lexicon.associations):
        pairings = _pairings(lexicon.pair_templates, lexicon.pairs(two))
        if not pairings or not association.first or not association.second:
            continue
        for side, attributes in ((1, association.first), (-1, association.second)):
            for attribute in dict.fromkeys(attributes):
                sentences = tuple(
                    (
                        fill(template, person=first, attribute=attribute),
                        fill(template, person=second, attribute=attribute),
                    )
                    for template, (first, second) in pairings
                )
                found.append((Contrast(two.of(association.name), side, sentences), f"attribute:{attribute}"))
    return found


def _left_out(lexicon: Lexicon, built: bool) -> dict[str, int]:  # noqa: FBT001 - whether the lists gave anything
    """Groups that no sentence speaks of, and pairs of groups that are not compared with each other."""
    if not built:
        return {"associations without pair templates, persons or attributes": len(lexicon.associations)}
    silent = sum(not lexicon.pairs(two) for two in lexicon.contrasts())
    return {"groups without a person beside one of the first group": silent, **lexicon.untold()}


def _pairings(templates: tuple[str, ...], persons: tuple[tuple[str, str], ...]) -> list[tuple[str, tuple[str, str]]]:
    """Templates with pairs of persons, along diagonals, so that few pairings use many of both."""
    diagonal = [
        (template, persons[(number + shift) % len(persons)])
        for shift in range(len(persons))
        for number, template in enumerate(templates)
    ]
    return diagonal[:MOST_PAIRINGS]


def _mean(values: FloatArray) -> float:
    return float(values.mean()) if len(values) else 0.0


def _combined(items: Items, differences: FloatArray, weights: FloatArray) -> FloatArray:
    """Mean over blocks by the weight of their items: [b]. A block without both sides in a draw is left out of it."""
    blocks = [_block(items, differences, weights, block) for block in dict.fromkeys(items.groups)]
    figures = np.stack([figure for figure, _ in blocks])
    weight = np.where(np.isnan(figures), 0.0, np.stack([mass for _, mass in blocks]))
    return ratio((np.nan_to_num(figures) * weight).sum(axis=0), weight.sum(axis=0))


def _block(items: Items, differences: FloatArray, weights: FloatArray, block: str) -> tuple[FloatArray, FloatArray]:
    """A block's figure and the weight of its items: [b] each."""
    mine = np.array([contrast.block == block for contrast in items.content])
    sides = np.array([contrast.side for contrast in items.content])

    def mean(side: int) -> FloatArray:
        member = (mine & (sides == side)).astype(np.float64)
        return ratio(weights @ (member * differences), weights @ member)

    mass = weights @ mine.astype(np.float64)
    return (mean(0) if block == _ROWS else (mean(1) - mean(-1)) / 2), mass


MEASURES: tuple[Measure, ...] = (PairPreference(),)
