# SPDX-License-Identifier: Apache-2.0
"""The paired preference: sentences it asks for, likelihoods against plain loops, figures by hand."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch

from cloister_workers.trainer.debias.lexicon import Association, Lexicon, SwapSet
from cloister_workers.trainer.debias.material import Material, Part
from cloister_workers.trainer.debias.measure import Items, Missing
from cloister_workers.trainer.debias.measures.pair_preference import MEASURES, MOST_PAIRINGS, Contrast
from cloister_workers.trainer.debias.shapes import Pair
from cloister_workers.trainer.debias.subjects.causal import CausalSubject
from cloister_workers.trainer.debias.subjects.masked import MaskedSubject
from tiny_language_models import bert, gpt2, whole_words

(MEASURE,) = MEASURES
LEXICON = Lexicon(
    axis="gender",
    language="en",
    groups=("female", "male"),
    swaps=(
        SwapSet(("aunt", "uncle"), person="my {}"),
        SwapSet(("she", "he"), tag="function"),
        SwapSet(("queen", "king"), person="the {}"),
        SwapSet(("girlish", "boyish"), tag="adjective"),
    ),
    associations=(Association("home_work", ("kitchen", "garden"), ("office",)),),
    pair_templates=("{person} likes the {attribute}", "near the {attribute} {person} sang a song"),
)
ROWS = (
    Pair("gender", "my aunt cooks", "my uncle cooks"),
    Pair("gender", "the queen cooks well", "the king cooks well", template="cooks"),
    Pair("age", "x", "y"),
)
WORDS = sorted(
    {
        word
        for template, person, attribute in itertools.product(
            (*LEXICON.pair_templates, "cooks well"),
            ("My aunt", "My uncle", "The queen", "The king", "my aunt", "my uncle", "the queen", "the king"),
            ("kitchen", "garden", "office"),
        )
        for word in template.format(person=person, attribute=attribute).split()
    }
    | {"Near"}
)


def _items(rows: tuple[Pair, ...] = ROWS) -> Items:
    found = MEASURE.items(Part(Material.from_rows(rows), {"gender": LEXICON}), "gender")
    assert isinstance(found, Items)
    return found


def test_sentences_differ_in_the_person_alone() -> None:
    """Each attribute meets the same pairings of template and persons, filled in with a capital where they begin."""
    items = _items()
    kitchen, garden, office, *rows = items.content
    assert kitchen.sentences == (
        ("My aunt likes the kitchen", "My uncle likes the kitchen"),
        ("Near the kitchen the queen sang a song", "Near the kitchen the king sang a song"),
        ("The queen likes the kitchen", "The king likes the kitchen"),
        ("Near the kitchen my aunt sang a song", "Near the kitchen my uncle sang a song"),
    )
    swapped = tuple(tuple(text.replace("kitchen", "office") for text in pair) for pair in kitchen.sentences)
    assert office.sentences == swapped
    assert (kitchen.side, garden.side, office.side) == (1, 1, -1)
    assert [row.sentences for row in rows] == [((row.first, row.second),) for row in ROWS[:2]]
    assert items.clusters == (
        "attribute:kitchen",
        "attribute:garden",
        "attribute:office",
        "my aunt cooks",
        "template:cooks",
    )


def test_pairings_are_bounded() -> None:
    """A rich lexicon is sampled along diagonals, so that all templates and many persons take part."""
    many = Lexicon(
        axis="gender",
        language="en",
        groups=("female", "male"),
        swaps=tuple(SwapSet((f"f{n}", f"m{n}"), person="{}") for n in range(9)),
        associations=(Association("a", ("x",), ("y",)),),
        pair_templates=tuple(f"{{person}} has {{attribute}} {n}" for n in range(5)),
    )
    items = MEASURE.items(Part(Material(), {"gender": many}), "gender")
    assert isinstance(items, Items)
    texts = [first for first, _ in items.content[0].sentences]
    assert len(set(texts)) == MOST_PAIRINGS
    assert {text.split()[-1] for text in texts} == set("01234")
    assert len({text.split()[0] for text in texts}) >= 7


def _by_hand(subject, text: str) -> tuple[float, float]:
    """Mean and sum of the log-probabilities of the words, by plain calls."""
    tokenizer, model = subject.tokenizer, subject.model.eval()
    ids = tokenizer(text)["input_ids"]
    found = []
    with torch.no_grad():
        if isinstance(subject, CausalSubject):
            table = model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
            found = [float(table[place, token]) for place, token in enumerate(ids[1:])]
        else:
            for place in range(1, len(ids) - 1):
                copy = [*ids[:place], tokenizer.mask_token_id, *ids[place + 1 :]]
                found.append(float(model(torch.tensor([copy])).logits[0, place].double().log_softmax(-1)[ids[place]]))
    return sum(found) / len(found), sum(found)


@pytest.mark.parametrize("kind", ["causal", "masked"])
def test_scores_and_figure_equal_plain_loops(kind: str) -> None:
    """Differences are those of plain calls; the figure is half the double difference, rows on top by their number."""
    tokenizer = whole_words(WORDS, masked=kind == "masked")
    device = torch.device("cpu")
    subject: Any = (
        CausalSubject(gpt2(tokenizer), tokenizer, device, lambda: None, batch_size=5)
        if kind == "causal"
        else MaskedSubject(bert(tokenizer), tokenizer, device, lambda: None, batch_size=5)
    )
    items = _items()
    differences = []
    for contrast in items.content:
        pairs = [(_by_hand(subject, first), _by_hand(subject, second)) for first, second in contrast.sentences]
        differences.append([np.mean([first[which] - second[which] for first, second in pairs]) for which in (1, 0)])
    scores = MEASURE.score(subject, items)
    np.testing.assert_allclose(scores, differences, atol=1e-5)
    kitchen, garden, office, one, two = (float(entry[0]) for entry in differences)
    built = ((kitchen + garden) / 2 - office) / 2
    figure = MEASURE.figure(items, scores, np.ones((1, 5)))
    np.testing.assert_allclose(figure, [(3 * built + 2 * (one + two) / 2) / 5], atol=1e-5)


def test_what_makes_a_group_likelier_everywhere_cancels() -> None:
    """A constant on all differences of the built-in pairs changes nothing, under any weights."""
    items = _items(())
    scores = np.array([[0.4, 2.0], [0.2, 1.0], [-0.1, -0.5]])
    weights = np.array([[1.0, 1, 1], [2, 0, 1], [0, 3, 1]])
    expected = [((0.4 + 0.2) / 2 + 0.1) / 2, (0.4 + 0.1) / 2, (0.2 + 0.1) / 2]
    np.testing.assert_allclose(MEASURE.figure(items, scores, weights), expected)
    np.testing.assert_allclose(MEASURE.figure(items, scores + 5, weights), expected)
    np.testing.assert_allclose(MEASURE.figure(items, -scores, weights), [-value for value in expected])


def test_a_draw_without_one_side_has_no_figure() -> None:
    """Where a draw lost all attributes of a side, rows alone speak; without rows nothing does."""
    items = _items()
    scores = np.array([[0.4, 0], [0.2, 0], [-0.1, 0], [0.6, 0], [0.0, 0]])
    weights = np.array([[1.0, 1, 0, 1, 2], [1, 1, 0, 0, 0]])
    np.testing.assert_allclose(MEASURE.figure(items, scores, weights), [0.2, math.nan])


def test_by_group_has_associations_rows_and_the_sentence() -> None:
    """Each association stands by itself, and the same figure in nats a token."""
    items = _items()
    scores = np.array([[0.4, 4.0], [0.2, 2.0], [-0.1, -1.0], [0.6, 6.0], [0.0, 0.0]])
    parts = MEASURE.by_group(items, scores, np.ones((1, 5)))
    built, rows = 0.2, 0.3
    assert {name: float(value[0]) for name, value in parts.items()} == pytest.approx(
        {
            "home_work": built,
            "rows of kind pair": rows,
            "all, in nats a token": 10 * (3 * built + 2 * rows) / 5,
        }
    )


def test_rows_alone_are_enough_and_nothing_is_too_little() -> None:
    """Without a lexicon the rows are measured; without both the measure says what is missing."""
    found = MEASURE.items(Part(Material.from_rows(ROWS), {}), "gender")
    assert isinstance(found, Items)
    assert [contrast.side for contrast in found.content] == [0, 0]
    assert isinstance(found.content[0], Contrast)
    bare = Lexicon("gender", "en", ("female", "male"), (SwapSet(("she", "he"), "function"),))
    assert isinstance(MEASURE.items(Part(Material(), {"gender": bare}), "gender"), Missing)
    assert isinstance(MEASURE.items(Part(Material.from_rows(ROWS), {}), "religion"), Missing)


def test_items_laid_twice_change_nothing() -> None:
    """Scores before beside scores after, with one of each chosen by weight, give the figure of the chosen ones."""
    items, chosen = _items(), np.array([1.0, 0, 1, 1, 0])
    before, after = np.arange(10.0).reshape(5, 2), -np.arange(10.0).reshape(5, 2) / 3
    twice = Items(items.content * 2, items.clusters * 2, items.groups * 2)
    weights = np.concatenate([chosen, 1 - chosen])[None, :]
    mixed = np.where(chosen[:, None] > 0, before, after)
    np.testing.assert_allclose(
        MEASURE.figure(twice, np.concatenate([before, after]), weights), MEASURE.figure(items, mixed, np.ones((1, 5)))
    )
