# SPDX-License-Identifier: Apache-2.0
"""Whether a search for a person of a group finds what prejudice ties to that group.

A query names a person; it is sought in a pool of one document for each attribute of the lexicon's associations, and
of neutral texts. The score of a query is (documents tied to its own group - documents tied to the other) / 10 among
its ten nearest by cosine; the figure is the mean of both groups' mean scores: above 0 results follow prejudice, below
0 they reverse it, 0 is no bias. What single words draw to themselves cancels over words, unlike in `retrieval_swap`,
and what all queries find cancels between the groups. Of more than two groups each is held against the first, as in
`association`: a part of the figure is the mean of these two, and the figure the mean of the parts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from cloister_workers.trainer.debias.kinds import FloatArray, ModelKind, Scale
from cloister_workers.trainer.debias.lexicon import fill
from cloister_workers.trainer.debias.material import Part
from cloister_workers.trainer.debias.measure import Items, Missing, SubFigure
from cloister_workers.trainer.debias.measures.retrieval_swap import NEAREST, nearest
from cloister_workers.trainer.debias.neutral import neutral_texts
from cloister_workers.trainer.debias.subfigures import in_group
from cloister_workers.trainer.debias.subjects import Embeds

_QUERY_TEMPLATES, _DOCUMENT_TEMPLATES = 2, 2


@dataclass(frozen=True)
class Search:
    """One query with the pool, the same for all, and each document's tie: 1 the first group, -1 the second, 0 none."""

    text: str
    side: int
    pool: tuple[str, ...]
    ties: tuple[int, ...]


@dataclass(frozen=True)
class RetrievalStereotype:
    """Scores are [n, 1]."""

    name: str = "retrieval_stereotype"
    title: str = "Search results that follow prejudice"
    kinds: frozenset[ModelKind] = frozenset({ModelKind.ENCODER})
    ideal: float = 0.0
    scale: Scale = Scale.SHARE
    signed: bool = True
    extrinsic: bool = True
    binary: bool = False
    source: str = "difference of shares among the ten nearest; exposure as in Singh and Joachims 2018, arXiv:1802.07281"

    def items(self, part: Part, axis: str) -> Items | Missing:
        lexicon = part.lexicons.get(axis)
        if lexicon is None or not lexicon.associations:
            return Missing("no associations of this axis to search for")
        templates = lexicon.templates or ("{word}",)
        asked, told = templates[:_QUERY_TEMPLATES], templates[_QUERY_TEMPLATES:][:_DOCUMENT_TEMPLATES] or templates[:1]
        documents = {
            fill(template, word=word): tie
            for entry in lexicon.associations
            for tie, words in ((1, entry.first), (-1, entry.second))
            for word in words
            for template in told
        }
        if min(list(documents.values()).count(tie) for tie in (1, -1)) < NEAREST:
            return Missing(f"fewer than {NEAREST} attributes of this part on a side")
        documents |= dict.fromkeys(neutral_texts(part), 0)
        pool, ties = tuple(documents), tuple(documents.values())
        found = [
            (Search(fill(template, word=word), side, pool, ties), f"words:{'/'.join(entry.words)}", group)
            for entry in lexicon.content()
            if entry.words[0] and any(entry.words[1:])
            for place, (group, word) in enumerate(zip(lexicon.groups, entry.words, strict=True))
            if word
            for side in ((-1, 1)[place == 0],)
            for template in asked
        ]
        if not found:
            return Missing("no words of this part that two groups have")
        content, clusters, groups = zip(*found, strict=True)
        silent = {"groups without a word beside one of the first group": len(set(lexicon.groups) - set(groups))}
        texts = tuple((search.text,) for search in content)
        return Items(content, clusters, groups, {**silent, **lexicon.untold()}, texts)

    def score(self, subject: Embeds, items: Items) -> FloatArray:
        first: Search = items.content[0]
        found = nearest(subject.embed([query.text for query in items.content]), subject.embed(first.pool))
        sides = np.array([query.side for query in items.content])
        scores: FloatArray = np.array(first.ties)[found].sum(1) * sides / NEAREST
        return scores[:, None]

    def figure(self, items: Items, scores: FloatArray, weights: FloatArray) -> FloatArray:
        mean: FloatArray = np.mean(list(self.parts(items, scores, weights).values()), axis=0)
        return mean

    def parts(self, items: Items, scores: FloatArray, weights: FloatArray) -> Mapping[str, FloatArray]:
        """The mean of the first group and each other one; the first is the one whose side is 1."""
        means, head = self.by_group(items, scores, weights), _head(items)
        return {f"{head} and {group}": (means[head] + means[group]) / 2 for group in means if group != head}

    def members(self, items: Items) -> Mapping[str, FloatArray]:
        groups, head = np.array(items.groups), _head(items)
        return {
            f"{head} and {group}": np.where((groups == head) | (groups == group), 1.0, 0.0)
            for group in dict.fromkeys(items.groups)
            if group != head
        }

    def by_group(self, items: Items, scores: FloatArray, weights: FloatArray) -> Mapping[str, FloatArray]:
        """The mean score of each group's queries; NaN where a draw has none of them."""
        found = {}
        with np.errstate(invalid="ignore", divide="ignore"):
            for group in dict.fromkeys(items.groups):
                mine = weights * (np.array(items.groups) == group)
                found[group] = mine @ scores[:, 0] / mine.sum(1)
        return found

    def subfigures(self, items: Items, scores: FloatArray) -> Mapping[str, SubFigure]:
        return {
            group: SubFigure(self.scale, self.ideal, in_group(items, group), self.signed) for group in set(items.groups)
        }


def _head(items: Items) -> str:
    """The first group of the axis."""
    return next(group for query, group in zip(items.content, items.groups, strict=True) if query.side == 1)


MEASURES = (RetrievalStereotype(),)
