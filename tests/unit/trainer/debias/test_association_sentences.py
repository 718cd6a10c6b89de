# SPDX-License-Identifier: Apache-2.0
"""SEAT's sentences are measured by their words: no templates, one unit a word, p that keeps its level."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from cloister_workers.messages import RowReason
from cloister_workers.trainer.debias.lexicon.rows import Swap
from cloister_workers.trainer.debias.material import Material
from cloister_workers.trainer.debias.measure import Missing
from cloister_workers.trainer.debias.measures.association import Association, AssociationTest
from cloister_workers.trainer.debias.partition import make_partition
from cloister_workers.trainer.debias.shapes import parse_row
from cloister_workers.trainer.debias.wordlists import short_lists
from tiny_encoder import planted_lexicon, planted_part

MEASURE: Any = Association()
FRAMES = ("This is {}.", "There is {}.", "Here is {}.", "{} is here.", "{} is there.", "{} is a thing.")


def words(letter: str, count: int = 5, start: int = 0) -> list[str]:
    return [f"{letter}{number}" for number in range(start, start + count)]


def framed(listed) -> tuple[str, ...]:
    return tuple(text[0].upper() + text[1:] for word in listed for text in (frame.format(word) for frame in FRAMES))


def seat(*lists, axis: str = "age") -> AssociationTest:
    first, second, a, b = map(framed, lists)
    return AssociationTest(axis, "own", first, second, a, b)


OWN = seat(words("m"), words("f"), words("a"), words("b"))


@dataclass
class ByWord:
    """Stands for an encoder: a vector for the word of a sentence, and a little of the sentence's own."""

    seed: int = 0
    asked: list[str] = field(default_factory=list)

    def embed(self, texts) -> np.ndarray:
        self.asked += texts
        return np.stack([_drawn(self.seed, _word_of(text)) + 0.4 * _drawn(self.seed, text) for text in texts])


@cache
def _drawn(seed: int, text: str) -> np.ndarray:
    return np.random.default_rng([seed, *text.encode()]).normal(size=5)


def _word_of(text: str) -> str:
    """The one token with a number in it."""
    return next(token for token in text.lower().strip(".").split() if token[-1].isdigit())


def measured(row, subject=None):
    items = MEASURE.items(replace(planted_part(), rows=Material.from_rows((row,))), row.axis)
    return items, MEASURE.score(subject or ByWord(), items)


# ---------------------------------------------------------------- an oracle: loops over sentences, words known
def associations(subject, lists) -> list[dict[str, list[float]]]:
    """Of both target lists, word to the associations of its sentences, in the order of FRAMES."""

    def unit(texts) -> np.ndarray:
        vectors = subject.embed(texts)
        scaled: np.ndarray = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return scaled

    *targets, a, b = lists
    towards = unit(framed(a)).mean(0) - unit(framed(b)).mean(0)
    return [{word: [float(each @ towards) for each in unit(framed([word]))] for word in listed} for listed in targets]


def exact_p(first, second) -> float:
    pooled = np.array([*first, *second])
    splits = np.array([list(split) for split in itertools.combinations(range(len(pooled)), len(first))])
    means = pooled[splits].mean(1)
    gaps = np.abs(means - (pooled.sum() - means * len(first)) / len(second))
    return float(np.mean(gaps >= abs(np.mean(first) - np.mean(second)) - 1e-12))


def random_p(first, second) -> float:
    rng, pooled = np.random.default_rng(0), np.array([*first, *second])
    drawn = rng.permuted(np.tile(pooled, (400, 1)), axis=1)
    gaps = np.abs(drawn[:, : len(first)].mean(1) - drawn[:, len(first) :].mean(1))
    return float((1 + np.sum(gaps >= abs(np.mean(first) - np.mean(second)))) / 401)


LISTS = (words("m"), words("f"), words("a"), words("b"))


def test_the_figure_is_that_of_the_sentences():
    """Raw association and effect size are those of a loop over a word's own sentences, and no others are asked for."""
    subject = ByWord()
    items, scores = measured(OWN, subject)
    assert set(subject.asked) == {text for listed in LISTS for text in framed(listed)}
    first, second = ([np.mean(each) for each in side.values()] for side in associations(ByWord(), LISTS))
    raw = np.mean(first) - np.mean(second)
    shown = MEASURE.by_group(items, scores, np.ones((1, len(items))))
    assert shown["own raw"][0] == pytest.approx(raw, abs=1e-12)
    assert shown["own d"][0] == pytest.approx(raw / np.std([*first, *second], ddof=1), abs=1e-12)


def test_templates_are_for_words_alone():
    """On an axis with templates words are put into them, and sentences are embedded as they are."""
    first, second = framed(words("m")), framed(words("f"))
    row = AssociationTest("gender", "own", first, second, tuple(words("x")), tuple(words("y")))
    items, _ = measured(row)
    own = {word.word: word.texts for word in items.content if ("own", 0) in word.places or ("own", 2) in word.places}
    assert framed(["m0"]) == own["m0"]
    assert ("Here is x0.", "There is the x0.", "Now x0.", "X0 is the word then.") == own["x0"]


def test_the_unit_is_the_word():
    """As many clusters as words, also where a word stands in another test bare; words are counted, not sentences."""
    items, _ = measured(OWN)
    assert {f"word:{word}" for listed in LISTS for word in listed} == set(items.clusters)
    assert 20 == len(items)
    four = seat(words("m", 4), *LISTS[1:])
    assert isinstance(MEASURE.items(replace(planted_part(), rows=Material.from_rows((four,))), "age"), Missing)
    part = planted_part(range(5), range(5), (seat(*LISTS, axis="gender"),))
    both = MEASURE.items(part, "gender")
    assert 40 == len(both)
    assert 20 == len(set(both.clusters))


def test_held_out_words_are_told_in_sentences():
    """Sentences about a word that belongs to another part are not measured."""
    row = seat(words("m", 12), words("f", 12), *LISTS[2:], axis="gender")
    part = planted_part(range(6, 14), range(6), (row,))
    part = replace(part, lexicons={"gender": replace(planted_lexicon(range(6, 14)), associations=())})
    items = MEASURE.items(part, "gender")
    expected = {*words("m", 6, 6), *words("f", 6, 6), *LISTS[2], *LISTS[3]}
    assert expected == {word.word for word in items.content}


def test_short_lists_are_counted_in_words():
    """A list of 25 words in six sentences each is long enough, one of 24 is named with its words."""
    row = seat(words("m", 25), words("f", 24), words("a", 25), words("b", 25))
    swaps = [Swap("age", ("one", "other"), (f"p{number}", f"q{number}")) for number in range(25)]
    found = short_lists(make_partition([], [], [*swaps, row], {}, seed=1), ["age"])
    assert ["second targets of association row 1 has 24 words"] == [entry.why.partition(",")[0] for entry in found]


def test_p_keeps_its_level_where_there_is_nothing():
    """Over replays with no difference between the groups, p is a loop's over splits of words and at most .05 about as
    often as it says; sentences as units, in the same replays, would say so several times as often.
    """
    replays = 60
    by_word, by_sentence = [], []
    for seed in range(replays):
        items, scores = measured(OWN, ByWord(seed))
        by_word.append(MEASURE.permutation(items, scores, seed)["own"])
        first, second = associations(ByWord(seed), LISTS)
        expected = exact_p(*([np.mean(each) for each in side.values()] for side in (first, second)))
        assert by_word[-1] == pytest.approx(expected, abs=1e-12)
        by_sentence.append(random_p(*(list(itertools.chain(*side.values())) for side in (first, second))))
    assert np.mean(np.array(by_word) <= 0.05) <= 0.1
    assert np.mean(np.array(by_sentence) <= 0.05) >= 0.3


def test_a_row_without_words_is_refused():
    """Free sentences that share no frame are no row, with a reason of their own."""
    row: dict[str, object] = {"kind": "association", "axis": "age", "name": "own"}
    row |= {"first_targets": ["My uncle repairs old clocks.", "She painted two houses."]}
    row |= {"second_targets": ["soup"], "first_attributes": ["c"], "second_attributes": ["d"]}
    assert parse_row(row) is RowReason.NO_WORD
