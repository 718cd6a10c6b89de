# SPDX-License-Identifier: Apache-2.0
"""Association of words with groups: the published formulas by hand, permutations against scipy."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from cloister.gate import Gate
from cloister_workers.messages import RowReason
from cloister_workers.trainer.debias.assess import assess
from cloister_workers.trainer.debias.material import Material
from cloister_workers.trainer.debias.measure import Items, Missing
from cloister_workers.trainer.debias.measures.association import (
    Association,
    AssociationTest,
    permutation_p,
    target_scores,
)
from cloister_workers.trainer.debias.measures.association import test_names as names_of_tests
from cloister_workers.trainer.debias.shapes import parse_row
from tiny_encoder import planted_lexicon, planted_part

MEASURE: Any = Association()


@dataclass
class Drawn:
    """Stands for an encoder: each text has a vector of its own, drawn once."""

    seed: int = 0
    asked: list[str] = field(default_factory=list)

    def embed(self, texts) -> np.ndarray:
        self.asked += texts
        return np.stack([np.random.default_rng([self.seed, *text.encode()]).normal(size=7) + 0.3 for text in texts])


def cosine(a, b) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def by_hand(subject, lexicon, first, second, a, b) -> tuple[float, float]:
    """Raw association and effect size with a loop over every pair of sentences."""
    made = {word: [text.replace("{word}", word) for text in lexicon.templates] for word in (*first, *second, *a, *b)}
    made = {word: [text[0].upper() + text[1:] for text in texts] for word, texts in made.items()}
    vectors = {word: subject.embed(texts) for word, texts in made.items()}

    def mean_cosine(word, others) -> float:
        return float(np.mean([cosine(x, y) for other in others for x in vectors[word] for y in vectors[other]]))

    s = {word: mean_cosine(word, a) - mean_cosine(word, b) for word in (*first, *second)}
    raw = np.mean([s[word] for word in first]) - np.mean([s[word] for word in second])
    return float(raw), float(raw / np.std(list(s.values()), ddof=1))


def words(letter: str, count: int = 6, start: int = 0) -> tuple[str, ...]:
    return tuple(f"{letter}{number}" for number in range(start, start + count))


def ones(items) -> np.ndarray:
    return np.ones((1, len(items)))


def test_raw_and_effect_size_equal_the_published_formulas():
    """For a lexicon's test and a user's, both figures are those of a loop over sentences; the axis has their mean."""
    own = AssociationTest("gender", "own", words("n"), words("n", 5, 10), words("a"), words("n", 7, 20))
    part = planted_part(range(8), range(5), (own,))
    subject, lexicon = Drawn(), part.lexicons["gender"]
    items = MEASURE.items(part, "gender")
    scores = MEASURE.score(subject, items)
    shown = MEASURE.by_group(items, scores, ones(items))
    expected = {
        "planted": by_hand(subject, lexicon, words("m", 8), words("f", 8), words("a", 5), words("b", 5)),
        "own": by_hand(subject, lexicon, words("n"), words("n", 5, 10), words("a"), words("n", 7, 20)),
    }
    for name, (raw, d) in expected.items():
        assert shown[f"{name} raw"][0] == pytest.approx(raw, abs=1e-12)
        assert shown[f"{name} d"][0] == pytest.approx(d, abs=1e-12)
    assert names_of_tests(items) == ("own", "planted")
    mean = np.mean([raw for raw, _ in expected.values()])
    assert MEASURE.figure(items, scores, ones(items))[0] == pytest.approx(mean, abs=1e-12)


def test_the_sign_tells_the_direction():
    """What prejudice says is above 0, and lists that change places turn the sign of raw and d."""
    part = planted_part(range(8), range(6))
    lexicon = part.lexicons["gender"]
    test = lexicon.associations[0]
    turned = replace(lexicon, associations=(replace(test, first=test.second, second=test.first),))
    found = []
    for each in (lexicon, turned):
        items = MEASURE.items(replace(part, lexicons={"gender": each}), "gender")
        shown = MEASURE.by_group(items, MEASURE.score(Drawn(), items), ones(items))
        found.append((shown["planted raw"][0], shown["planted d"][0]))
    np.testing.assert_allclose(found[0], -np.array(found[1]), atol=1e-12)


def test_weights_count_words_as_often_as_they_are_drawn():
    """A figure under whole weights is the figure of lists in which each word stands that many times."""
    rng = np.random.default_rng(4)
    items = MEASURE.items(planted_part(range(7), range(6)), "gender")
    scores = MEASURE.score(Drawn(), items)
    weights = rng.integers(0, 4, size=(20, len(items))).astype(float)
    for draw, value in zip(weights, MEASURE.figure(items, scores, weights), strict=True):
        chosen = np.repeat(np.arange(len(items)), draw.astype(int))
        content = tuple(items.content[index] for index in chosen)
        repeated = Items(content, tuple(items.clusters[index] for index in chosen))
        assert value == pytest.approx(MEASURE.figure(repeated, scores[chosen], ones(chosen))[0], abs=1e-12)


def test_a_draw_without_a_list_has_no_figure():
    """Where all words of one list are drawn out, the figure is no number, and nothing warns."""
    items = MEASURE.items(planted_part(range(7), range(6)), "gender")
    weights = np.array([[0.0 if word.word.startswith("a") else 1.0 for word in items.content]])
    assert np.isnan(MEASURE.figure(items, MEASURE.score(Drawn(), items), weights)[0])


def test_before_and_after_may_stand_in_one_table():
    """Items and scores put twice behind each other, under weights for one half, give that half's figure."""
    items = MEASURE.items(planted_part(range(7), range(6)), "gender")
    before, after = MEASURE.score(Drawn(), items), MEASURE.score(Drawn(1), items)
    double = Items(items.content * 2, items.clusters * 2)
    half = np.concatenate([np.zeros(len(items)), np.ones(len(items))])[None]
    value = MEASURE.figure(double, np.concatenate([before, after]), half)[0]
    assert value == pytest.approx(MEASURE.figure(items, after, ones(items))[0], abs=1e-12)


def test_words_of_other_parts_are_not_measured():
    """A user's list loses the words that the lexicon gave to other parts, and a test that is then too short is left."""
    own = AssociationTest("gender", "own", words("m", 12), words("f", 12), words("a"), words("b"))
    part = planted_part(range(6, 14), range(6), (own,))
    part = replace(part, lexicons={"gender": replace(planted_lexicon(range(6, 14)), associations=())})
    items = MEASURE.items(part, "gender")
    assert {word.word for word in items.content} == {*words("m", 6, 6), *words("f", 6, 6), *words("a"), *words("b")}
    few = replace(part, lexicons={"gender": replace(planted_lexicon(range(8, 14)), associations=())})
    assert isinstance(MEASURE.items(few, "gender"), Missing)
    assert isinstance(MEASURE.items(part, "age"), Missing)


def test_a_users_axis_needs_no_lexicon():
    """Rows of an axis that has no word list are measured on the bare words."""
    own = AssociationTest("age", "own", words("m"), words("f"), words("a"), words("b"))
    part = replace(planted_part(), rows=Material.from_rows((own,)))
    items = MEASURE.items(part, "age")
    subject = Drawn()
    MEASURE.score(subject, items)
    assert set(subject.asked) == {*words("m"), *words("f"), *words("a"), *words("b")}
    assert len(set(items.clusters)) == len(items) == 24


# ---------------------------------------------------------------- permutation test
def scipy_p(first, second, alternative, resamples) -> float:
    from scipy.stats import permutation_test

    def difference(x, y, axis):
        return x.mean(axis) - y.mean(axis)

    found = permutation_test(
        (first, second),
        difference,
        vectorized=True,
        n_resamples=resamples,
        alternative=alternative,
        rng=np.random.default_rng(0),
    )
    return float(found.pvalue)


@pytest.mark.parametrize("shift", [0.0, 0.8, -0.8])
def test_exact_p_equals_scipy(shift):
    """Over all splits of 5 and 6 words, two-sided and one-sided p are scipy's."""
    rng = np.random.default_rng(6)
    first, second = rng.normal(size=5) + shift, rng.normal(size=6)
    generator = np.random.default_rng(0)
    splits = [sum(split) for split in itertools.combinations(np.concatenate([first, second]), 5)]
    assert len(splits) == 462
    one = permutation_p(first, second, generator, two_sided=False)
    assert one == pytest.approx(scipy_p(first, second, "greater", np.inf), abs=1e-12)
    total = first.sum() + second.sum()
    gaps = np.array([abs(s / 5 - (total - s) / 6) for s in splits])
    by_hand = np.mean(gaps >= abs(first.mean() - second.mean()) - 1e-12)
    assert permutation_p(first, second, generator) == pytest.approx(by_hand, abs=1e-12)


def test_random_p_is_near_the_exact_one_and_never_zero():
    """Random splits with one added give the exact p within sampling error, and 1 / (1 + splits) at least."""
    rng = np.random.default_rng(2)
    first, second = rng.normal(size=8) + 0.7, rng.normal(size=8)
    exact = permutation_p(first, second, rng)
    drawn = permutation_p(first, second, rng, most=10_000)
    assert drawn == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / 10_000) + 1e-4)
    assert permutation_p(first + 100, second, rng, most=999) >= 1 / 1000


def test_permuting_words_finds_the_planted_association():
    """Scores of target words by hand give s(w), and p of a planted shift is small where p of none is not."""
    items = MEASURE.items(planted_part(range(8), range(6)), "gender")
    scores = MEASURE.score(Drawn(), items)
    first, second = target_scores(items, scores, "planted")
    assert len(first) == len(second) == 8
    shown = MEASURE.by_group(items, scores, ones(items))
    assert first.mean() - second.mean() == pytest.approx(shown["planted raw"][0], abs=1e-12)
    rng = np.random.default_rng(0)
    assert permutation_p(first + 1, second, rng) < 0.01 < permutation_p(first, second, rng)


def test_a_job_tests_every_association_before_and_after():
    """Both p of each test are in what is measured, those of a loop over splits, and decide nothing."""
    items = MEASURE.items(planted_part(range(5), range(6)), "gender")
    before, after = (MEASURE.score(Drawn(seed), items) for seed in (0, 1))
    found = assess(MEASURE, "gender", items, before, after, Gate(draws=50), primary=True, seed=1)
    by_hand = []
    for scores in (before, after):
        first, second = target_scores(items, scores, "planted")
        pooled = np.concatenate([first, second])
        gaps = [
            abs(pooled[list(chosen)].mean() - np.delete(pooled, chosen).mean())
            for chosen in itertools.combinations(range(10), 5)
        ]
        by_hand.append(np.mean(np.array(gaps) >= abs(first.mean() - second.mean()) - 1e-12))
    [test] = found.permuted
    assert ("planted", *by_hand) == (test.test, pytest.approx(test.before), pytest.approx(test.after))


# ---------------------------------------------------------------- rows
ROW = {
    "kind": "association",
    "axis": "gender",
    "name": "own",
    "first_targets": ["a"],
    "second_targets": ["b"],
    "first_attributes": ["c"],
    "second_attributes": ["d", "e"],
}


def test_a_row_is_read():
    """A row of kind association has four lists, and its axis and name keep it in one part."""
    row = parse_row(ROW)
    assert row == AssociationTest("gender", "own", ("a",), ("b",), ("c",), ("d", "e"))
    assert row.keys() == ("association:gender:own",)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"axis": 3}, RowReason.WRONG_TYPE),
        ({"name": " "}, RowReason.EMPTY_TEXT),
        ({"first_targets": "a"}, RowReason.WRONG_TYPE),
        ({"first_targets": []}, RowReason.EMPTY_TEXT),
        ({"second_attributes": ["d", 4]}, RowReason.WRONG_TYPE),
        ({"second_attributes": ["d", ""]}, RowReason.EMPTY_TEXT),
    ],
)
def test_a_row_that_is_none_says_why(change, reason):
    """Wrong types, empty lists and empty words are told apart, and nothing is raised."""
    assert parse_row({**ROW, **change}) is reason
    assert parse_row({key: value for key, value in ROW.items() if key not in change}) is RowReason.MISSING_KEY
