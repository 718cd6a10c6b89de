# SPDX-License-Identifier: Apache-2.0
"""How far search results change when a query speaks of another group.

A query is a sentence about a person; its ten nearest texts by cosine are sought in a pool of neutral texts and of one
text for each attribute of the lexicon, once for each group. The score of a query is the mean over all pairs of groups
of 1 - overlap of the two sets of ten; the figure is its mean: a share, 0 where the group changes nothing. It has no
direction. Queries are made from the lexicon (`pair_templates`, persons of this part, attributes of its associations),
and from users' rows of kind `pair`.

Words of a pair differ in more than the group (Joseph and Josephine, steward and stewardess), and a name or a rare word
brings its own neighbours along. So the figure has a floor above 0 that no mitigation reaches; read the change, and
`retrieval_stereotype` for the part that follows prejudice.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from cloister_workers.trainer.debias.kinds import FloatArray, IntArray, ModelKind, Scale
from cloister_workers.trainer.debias.lexicon import Lexicon, fill
from cloister_workers.trainer.debias.material import Part
from cloister_workers.trainer.debias.measure import Items, Missing
from cloister_workers.trainer.debias.neutral import neutral_texts
from cloister_workers.trainer.debias.shapes import Pair
from cloister_workers.trainer.debias.subjects import Embeds
from cloister_workers.trainer.debias.utilities.similarity import cosines

NEAREST = 10
_SMALLEST_POOL, _LARGEST_POOL = 40, 2000
_MOST_QUERIES = 600
_MOST_GROUPS = 6  # all pairs of them: 15


@dataclass(frozen=True)
class Query:
    """One query, once for each group, and where it seeks."""

    texts: tuple[str, ...]
    pool: tuple[str, ...]
    """The same for all queries."""


@dataclass(frozen=True)
class RetrievalSwap:
    """Scores are [n, 1]."""

    name: str = "retrieval_swap"
    title: str = "Search results that change with the group"
    kinds: frozenset[ModelKind] = frozenset({ModelKind.ENCODER})
    ideal: float = 0.0
    scale: Scale = Scale.SHARE
    signed: bool = False
    extrinsic: bool = True
    binary: bool = False
    source: str = "1 - overlap@10 of rankings, Webber et al. 2010, doi:10.1145/1852102.1852106, under a swap of groups"

    def items(self, part: Part, axis: str) -> Items | Missing:
        lexicon = part.lexicons.get(axis)
        attributes = _attributes(lexicon) if lexicon and lexicon.templates else ()
        documents = [fill(lexicon.templates[0], word=word) for word in attributes] if lexicon else []
        pool = tuple(dict.fromkeys((*neutral_texts(part), *documents)))[:_LARGEST_POOL]
        if len(pool) < _SMALLEST_POOL:
            return Missing(f"fewer than {_SMALLEST_POOL} neutral texts to search")
        own = [((row.first, row.second), row.template or row.first) for row in part.rows.of(Pair) if row.axis == axis]
        made = _spread(list(_queries(lexicon)), _MOST_QUERIES) if lexicon else []
        queries = [*own, *made]
        if not queries:
            return Missing("no pairs of this axis, and no lexicon to make them from")
        beyond = {
            f"groups beyond the first {_MOST_GROUPS}": max(0, len(lexicon.groups) - _MOST_GROUPS) if lexicon else 0
        }
        content = tuple(Query(texts, pool) for texts, _ in queries)
        clusters = tuple(cluster for _, cluster in queries)
        return Items(content, clusters, left_out=beyond, texts=tuple(texts for texts, _ in queries))

    def score(self, subject: Embeds, items: Items) -> FloatArray:
        pool = subject.embed(items.content[0].pool)
        texts = [text for query in items.content for text in query.texts]
        found = nearest(subject.embed(texts), pool)
        scores, start = [], 0
        for query in items.content:
            sets = [frozenset(row) for row in found[start : start + len(query.texts)].tolist()]
            start += len(query.texts)
            scores.append(np.mean([1 - len(a & b) / NEAREST for a, b in itertools.combinations(sets, 2)]))
        return np.array(scores)[:, None]

    def figure(self, items: Items, scores: FloatArray, weights: FloatArray) -> FloatArray:
        with np.errstate(invalid="ignore", divide="ignore"):
            mean: FloatArray = weights @ scores[:, 0] / weights.sum(1)
        return mean

    def by_group(self, items: Items, scores: FloatArray, weights: FloatArray) -> Mapping[str, FloatArray]:
        return {}


def _queries(lexicon: Lexicon) -> Iterator[tuple[tuple[str, ...], str]]:
    """Texts by group with the cluster, which is the set of words: sentences of one set are alike."""
    attributes = _attributes(lexicon)
    persons = lexicon.persons()
    for number, people in enumerate(persons):
        for place, template in enumerate(lexicon.pair_templates):
            attribute = attributes[(number + place * len(persons)) % len(attributes)] if attributes else ""
            if not attribute and "{attribute}" in template:
                continue
            texts = tuple(fill(template, person=person, attribute=attribute) for person in people[:_MOST_GROUPS])
            yield texts, f"words:{'/'.join(people)}"


def _attributes(lexicon: Lexicon) -> tuple[str, ...]:
    words = (word for entry in lexicon.associations for word in (*entry.first, *entry.second))
    return tuple(dict.fromkeys(words))


def _spread(queries: list[tuple[tuple[str, ...], str]], most: int) -> list[tuple[tuple[str, ...], str]]:
    """At most so many, taken at equal distances."""
    if len(queries) <= most:
        return queries
    return [queries[index * len(queries) // most] for index in range(most)]


def nearest(queries: FloatArray, pool: FloatArray) -> IntArray:
    """For each query, ten indices into the pool, the nearest by cosine first; of equals the first: [n, 10]."""
    found: IntArray = np.argsort(-cosines(queries, pool), axis=1, kind="stable")[:, :NEAREST]
    return found


MEASURES = (RetrievalSwap(),)
