# SPDX-License-Identifier: Apache-2.0
"""Association of words with groups in a sentence encoder (WEAT, SEAT), raw and as an effect size.

For words X and Y of two groups and attributes A and B that prejudice ties to them,

    s(w) = mean over A of cos(w, a) - mean over B of cos(w, b)
    raw  = mean over X of s - mean over Y of s                 the figure: cosine, signed, 0 is no association
    d    = raw / standard deviation of s over X and Y, ddof 1  in the report, by test

Above 0 is what prejudice says, below 0 its reverse. d has no scale (at most 2) and can stand still while raw falls,
so raw is what is gated. A word is embedded in every template; cos of two words is the mean over all pairs of their
sentences, so X, Y, A and B count as SEAT's sets of sentences, grouped by word. The figure of an axis is the mean raw
association over its tests: the lexicon's associations between its first group and each of the others, and users' rows:

    {"kind": "association", "axis", "name", "first_targets", "second_targets", "first_attributes", "second_attributes"}

A user's list holds words, or SEAT's sentences, from which `cloister.listed_words` tells the words: those sentences are
embedded as they are, in no template.

The unit of the bootstrap is the word: targets and attributes alike. The published permutation test, of target words
alone, is in the report before and after, two-sided; the gate looks at intervals.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from cloister.listed_words import ListedWord, NoWordError, listed_words
from cloister_workers.messages import RowReason
from cloister_workers.trainer.debias.kinds import FloatArray, ModelKind, Scale
from cloister_workers.trainer.debias.lexicon import fill
from cloister_workers.trainer.debias.material import Part, row_kind
from cloister_workers.trainer.debias.measure import Items, Missing
from cloister_workers.trainer.debias.statistics.bootstrap import chunks
from cloister_workers.trainer.debias.subjects import Embeds
from cloister_workers.trainer.debias.utilities.similarity import unit
from cloister_workers.trainer.rows import checked_text, text_of

ROLES = ("first targets", "second targets", "first attributes", "second attributes")
FEWEST = 5
"""Words in each of the four lists of a test, of those that fall into the part."""
_MOST_TEMPLATES = 6
_EXACT = 100_000
_Lists = tuple[tuple[ListedWord, ...], ...]


@row_kind("association")
@dataclass(frozen=True)
class AssociationTest:
    """Four lists of a user's own, each of words or of sentences, as the file has them."""

    axis: str
    name: str
    first_targets: tuple[str, ...]
    second_targets: tuple[str, ...]
    first_attributes: tuple[str, ...]
    second_attributes: tuple[str, ...]

    @classmethod
    def parse(cls, row: Mapping[str, object]) -> Self | RowReason:
        names = [text_of(dict(row), key) for key in ("axis", "name")]
        lists = [_entries(row, role.replace(" ", "_")) for role in ROLES]
        if problem := next((value for value in (*names, *lists) if isinstance(value, RowReason)), None):
            return problem
        axis, name = (str(value) for value in names)
        first, second, third, fourth = (value for value in lists if not isinstance(value, RowReason))
        found = cls(axis, name, first, second, third, fourth)
        try:
            found.lists()
        except NoWordError:
            return RowReason.NO_WORD
        return found

    def lists(self) -> _Lists:
        """The words of each list once, in the order of ROLES. Raises NoWordError."""
        return listed_words((self.first_targets, self.second_targets, self.first_attributes, self.second_attributes))

    def keys(self) -> tuple[str, ...]:
        return (f"association:{self.axis}:{self.name}",)


@dataclass(frozen=True)
class Word:
    """A word with its sentences, and the lists of which it is one: (test, index into ROLES).

    A word that comes with other sentences elsewhere is another item of the same cluster.
    """

    word: str
    texts: tuple[str, ...]
    places: frozenset[tuple[str, int]]


@dataclass(frozen=True)
class Association:
    """Scores are [n, d]: the mean over a word's sentences of their embeddings at length 1, so that the product of two
    rows is the mean cosine of their sentences.
    """

    name: str = "association"
    title: str = "Association of words with groups (raw SEAT)"
    kinds: frozenset[ModelKind] = frozenset({ModelKind.ENCODER})
    ideal: float = 0.0
    scale: Scale = Scale.COSINE
    signed: bool = True
    extrinsic: bool = False
    binary: bool = False
    source: str = "Caliskan et al. 2017, doi:10.1126/science.aal4230; May et al. 2019, arXiv:1903.10561"

    def items(self, part: Part, axis: str) -> Items | Missing:
        """Every word once with the same sentences. Words of other parts are taken out of users' lists."""
        lexicon = part.lexicons.get(axis)
        foreign = {word for entry in lexicon.held_out for word in entry.words} if lexicon else set()
        every = _tests(part, axis, foreign)
        tests = [test for test in every if min(len(words) for words in test[1]) >= FEWEST]
        if not tests:
            return Missing(f"no association with {FEWEST} words of this part in each of its four lists")
        templates = lexicon.templates[:_MOST_TEMPLATES] if lexicon else ()
        places: dict[ListedWord, set[tuple[str, int]]] = {}
        for name, lists in tests:
            for role, words in enumerate(lists):
                for word in words:
                    places.setdefault(word, set()).add((name, role))
        found = tuple(Word(word.word, _texts(word, templates), frozenset(where)) for word, where in places.items())
        short = {f"tests with fewer than {FEWEST} words of this part in a list": len(every) - len(tests)}
        left_out = {**short, **(lexicon.untold() if lexicon and lexicon.associations else {})}
        clusters = tuple(f"word:{word.word}" for word in found)
        return Items(found, clusters, left_out=left_out, texts=tuple(word.texts for word in found))

    def score(self, subject: Embeds, items: Items) -> FloatArray:
        texts = [text for word in items.content for text in word.texts]
        owner = np.repeat(np.arange(len(items)), [len(word.texts) for word in items.content])
        embedded = unit(subject.embed(texts))
        means: FloatArray = np.zeros((len(items), embedded.shape[1]))
        np.add.at(means, owner, embedded)
        return means / np.bincount(owner)[:, None]

    def figure(self, items: Items, scores: FloatArray, weights: FloatArray) -> FloatArray:
        """Mean raw association over the tests; NaN where a draw leaves one of their lists empty."""
        mean: FloatArray = np.mean([raw for _, raw, _ in _by_test(items, scores, weights)], axis=0)
        return mean

    def parts(self, items: Items, scores: FloatArray, weights: FloatArray) -> Mapping[str, FloatArray]:
        """Raw association of every test."""
        return {name: raw for name, raw, _ in _by_test(items, scores, weights)}

    def members(self, items: Items) -> Mapping[str, FloatArray]:
        """The words of every test, whatever their list."""
        return {name: np.max(_columns(items, name), axis=0) for name in test_names(items)}

    def permutation(self, items: Items, scores: FloatArray, seed: int) -> Mapping[str, float]:
        """P of every test when target words change places between the two groups."""
        rng = np.random.Generator(np.random.PCG64(seed))
        return {name: permutation_p(*target_scores(items, scores, name), rng) for name in test_names(items)}

    def by_group(self, items: Items, scores: FloatArray, weights: FloatArray) -> Mapping[str, FloatArray]:
        """`NAME raw` and `NAME d` of every test."""
        found: dict[str, FloatArray] = {}
        for name, raw, d in _by_test(items, scores, weights):
            found |= {f"{name} raw": raw, f"{name} d": d}
        return found


def test_names(items: Items) -> tuple[str, ...]:
    """Names of the tests, in their order."""
    return tuple(sorted({name for word in items.content for name, _ in word.places}))


def target_scores(items: Items, scores: FloatArray, test: str) -> tuple[FloatArray, FloatArray]:
    """s(w) of the first and of the second targets of a test."""
    first, second, a, b = (np.flatnonzero(column) for column in _columns(items, test))
    s = scores @ (scores[a].mean(0) - scores[b].mean(0))
    return s[first], s[second]


def permutation_p(
    first: FloatArray, second: FloatArray, rng: np.random.Generator, *, two_sided: bool = True, most: int = _EXACT
) -> float:
    """How often a split of the words into parts of these sizes has means as far apart as the true one.

    Exact over all C(n, k) splits where there are at most `most`; else over `most` random ones, (1 + as extreme) /
    (1 + most). The published test is one-sided, which cannot see a reversed association.
    """
    pooled, size = np.concatenate([first, second]), len(first)
    exact = math.comb(len(pooled), size) <= most
    if exact:
        sums = pooled[np.array(list(itertools.combinations(range(len(pooled)), size)))].sum(1)
    else:
        drawn = [
            rng.permuted(np.tile(pooled, (rows, 1)), axis=1)[:, :size].sum(1) for rows in chunks(most, len(pooled))
        ]
        sums = np.concatenate(drawn)
    differences = sums / size - (pooled.sum() - sums) / len(second)
    seen = first.mean() - second.mean()
    slack = 1e-12 * max(1.0, float(np.abs(pooled).max()))  # equal splits summed in another order are equal
    extreme = np.abs(differences) >= abs(seen) - slack if two_sided else differences >= seen - slack
    return float((extreme.sum() + (not exact)) / (len(sums) + (not exact)))


# ---------------------------------------------------------------- tests of a part
def _tests(part: Part, axis: str, foreign: set[str]) -> list[tuple[str, _Lists]]:
    found: list[tuple[str, _Lists]] = []
    lexicon = part.lexicons.get(axis)
    if lexicon is not None:
        groups = list(lexicon.terms().values())
        found += [
            (two.of(entry.name), tuple(map(_bare, (groups[two.first], groups[two.second], entry.first, entry.second))))
            for entry in lexicon.associations
            for two in lexicon.contrasts()
        ]
    for row in part.rows.of(AssociationTest):
        if row.axis == axis:
            lists = tuple(tuple(word for word in words if not word.is_among(foreign)) for words in row.lists())
            found.append((row.name, lists))
    return found


def _bare(words: Sequence[str]) -> tuple[ListedWord, ...]:
    return tuple(map(ListedWord, dict.fromkeys(words)))


def _texts(word: ListedWord, templates: Sequence[str]) -> tuple[str, ...]:
    """What is embedded for a word: the sentences of its file, else every template with it, else the word alone."""
    return word.sentences or tuple(fill(template, word=word.word) for template in templates) or (word.word,)


def _entries(row: Mapping[str, object], key: str) -> tuple[str, ...] | RowReason:
    if key not in row:
        return RowReason.MISSING_KEY
    value = row[key]
    if not isinstance(value, list):
        return RowReason.WRONG_TYPE
    entries = [checked_text(entry) for entry in value]
    problem = next((entry for entry in entries if isinstance(entry, RowReason)), None)
    return problem or tuple(str(entry) for entry in entries) or RowReason.EMPTY_TEXT


# ---------------------------------------------------------------- figures
def _columns(items: Items, test: str) -> tuple[FloatArray, ...]:
    """For each role, 1 for the words that have it in the test: float64 [n]."""
    return tuple(np.array([float((test, role) in word.places) for word in items.content]) for role in range(len(ROLES)))


def _by_test(items: Items, scores: FloatArray, weights: FloatArray) -> list[tuple[str, FloatArray, FloatArray]]:
    """(name, raw [b], d [b]) of every test."""
    return [(name, *_raw_and_effect(_columns(items, name), scores, weights)) for name in test_names(items)]


def _raw_and_effect(
    columns: Sequence[FloatArray], scores: FloatArray, weights: FloatArray
) -> tuple[FloatArray, FloatArray]:
    first, second, a, b = (weights * column for column in columns)
    with np.errstate(invalid="ignore", divide="ignore"):
        s = (_share(a) @ scores - _share(b) @ scores) @ scores.T  # [b, n]
        raw = (_share(first) * s).sum(1) - (_share(second) * s).sum(1)
        both = first + second
        count = both.sum(1)
        spread = (both * (s - (_share(both) * s).sum(1)[:, None]) ** 2).sum(1) / (count - 1)
        return raw, raw / np.sqrt(spread)


def _share(weights: FloatArray) -> FloatArray:
    shares: FloatArray = weights / weights.sum(1, keepdims=True)
    return shares


MEASURES = (Association(),)
