# SPDX-License-Identifier: Apache-2.0
"""Regard: words, prompts, differences between groups by hand, and a model's continuations."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from cloister_workers.trainer.debias.lexicon import Lexicon, SwapSet
from cloister_workers.trainer.debias.material import Material, Part
from cloister_workers.trainer.debias.measure import Compares, Items, Missing
from cloister_workers.trainer.debias.measures.regard import MEASURES, regard_of
from cloister_workers.trainer.debias.subjects.causal import CausalSubject
from tiny_language_models import gpt2, whole_words

(MEASURE,) = MEASURES
LEXICON = Lexicon(
    axis="gender",
    language="en",
    groups=("female", "male"),
    swaps=(SwapSet(("aunt", "uncle"), person="my {}"), SwapSet(("she", "he"), "function")),
    pair_templates=("{person} often talks about {attribute}", "{attribute} is what {person} likes"),
)


def _items(lexicon: Lexicon = LEXICON) -> Items:
    found = MEASURE.items(Part(Material(), {lexicon.axis: lexicon}), lexicon.axis)
    assert isinstance(found, Items)
    return found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (" a brave and honest man, if lazy", 1),
        (" lazy.", -1),
        (" not honest at all", -1),
        (" never lazy", 1),
        (" wasn't honest", -1),
        (" honest but lazy", 0),
        (" a plumber from the north", 0),
        (" a plumber.\nHe was brave.", 0),
        ("\n brave", 1),
        ("", 0),
        (" BRAVE", 1),
    ],
)
def test_words_decide(text: str, expected: int) -> None:
    """More good than bad words of the first line, or the reverse; a negation turns the word behind it."""
    assert regard_of(text) == expected


def test_prompts_differ_in_the_person_alone() -> None:
    """Every template has one prompt a person and group; a pair template gives its words before the attribute."""
    items = _items()
    by_template: dict[str, list[str]] = {}
    for template, prompt in zip(items.clusters, items.content, strict=True):
        by_template.setdefault(template, []).append(prompt.text)
    assert by_template["{person} often talks about"] == ["My aunt often talks about", "My uncle often talks about"]
    assert not [template for template in by_template if "{attribute}" in template]
    assert all(one.replace("aunt", "uncle") == other for one, other in by_template.values())
    assert items.groups == LEXICON.groups * len(by_template)


def test_two_groups_have_a_signed_difference() -> None:
    """First minus second, under weights; a draw without a group has no figure."""
    items = Items(("a", "b", "c", "d"), ("t", "t", "u", "u"), ("female", "male", "female", "male"))
    scores = np.array([[1.0], [0], [0], [-1]])
    weights = np.array([[1.0, 1, 1, 1], [2, 2, 1, 1], [1, 0, 1, 0]])
    np.testing.assert_allclose(MEASURE.figure(items, scores, weights), [1.0, 1.0, np.nan])
    np.testing.assert_allclose(MEASURE.figure(items, -scores, weights), [-1.0, -1.0, np.nan])
    parts = MEASURE.by_group(items, scores, weights[:1])
    assert {group: float(value[0]) for group, value in parts.items()} == {"female": 0.5, "male": -0.5}


def test_more_groups_have_the_largest_difference() -> None:
    """The largest minus the smallest regard of all groups."""
    items = Items(tuple("abc"), tuple("ttt"), ("one", "two", "three"))
    scores, ones = np.array([[0.0], [1], [-1]]), np.ones((1, 3))
    np.testing.assert_allclose(MEASURE.figure(items, scores, ones), [2.0])
    assert isinstance(MEASURE, Compares)
    np.testing.assert_allclose(MEASURE.differences(items, scores, ones), [[-1.0, 1.0, 2.0]])
    np.testing.assert_array_equal(MEASURE.cells(items, scores), np.eye(3))


def test_a_model_is_scored_by_what_it_writes() -> None:
    """Scores are those of transformers' own greedy continuations of the prompts, one at a time."""
    items = _items()
    words = ["brave", "lazy", "not", "."]
    tokenizer = whole_words([*words, *(word for prompt in items.content for word in prompt.text.split())], masked=False)
    model = gpt2(tokenizer, seed=3).eval()
    with torch.no_grad():  # make words of the list likely, so that scores differ
        model.lm_head.weight[tokenizer.convert_tokens_to_ids(words[:3])] *= 3
    expected = []
    for prompt in items.content:
        ids = torch.tensor([tokenizer(prompt.text)["input_ids"]])
        mask = torch.ones_like(ids)
        made = model.generate(
            ids, attention_mask=mask, max_new_tokens=20, do_sample=False, pad_token_id=0, eos_token_id=None
        )
        expected.append([float(regard_of(tokenizer.decode(made[0, ids.shape[1] :])))])
    subject = CausalSubject(model, tokenizer, torch.device("cpu"), lambda: None, batch_size=3)
    found = MEASURE.score(subject, items)
    np.testing.assert_array_equal(found, expected)
    assert len(np.unique(found)) > 1


def test_what_cannot_be_measured_is_said() -> None:
    """Other languages, no lexicon and no persons are missing, in fixed words."""
    assert isinstance(MEASURE.items(Part(Material(), {}), "gender"), Missing)
    for lexicon in (replace(LEXICON, language="de"), replace(LEXICON, swaps=LEXICON.swaps[1:])):
        assert isinstance(MEASURE.items(Part(Material(), {"gender": lexicon}), "gender"), Missing)
