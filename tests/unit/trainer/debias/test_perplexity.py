# SPDX-License-Identifier: Apache-2.0
"""Perplexity and pseudo-perplexity against plain loops; losses by hand."""

from __future__ import annotations

import math

import numpy as np
import torch

from cloister_workers.trainer.debias.lexicon import Lexicon
from cloister_workers.trainer.debias.material import Material, Part
from cloister_workers.trainer.debias.measure import Items, Missing
from cloister_workers.trainer.debias.shapes import Text
from cloister_workers.trainer.debias.subjects.causal import CausalSubject
from cloister_workers.trainer.debias.subjects.masked import MaskedSubject
from cloister_workers.trainer.debias.utilities.perplexity import UTILITIES
from tiny_language_models import bert, byte_pairs, gpt2, whole_words

CAUSAL, MASKED = UTILITIES
TEXTS = ("rain fell on the quiet harbour all night", "bread cools on the sill", "snow")


def _items() -> Items:
    found = CAUSAL.items(Part(Material.from_rows([Text(text) for text in TEXTS]), {}))
    assert isinstance(found, Items)
    return found


def test_perplexity_equals_a_plain_loop() -> None:
    """exp of all negative log-likelihoods by all tokens, the first of a text given end-of-text."""
    tokenizer = byte_pairs(TEXTS)
    model = gpt2(tokenizer).eval()
    losses = []
    for text in TEXTS:
        ids = tokenizer(text)["input_ids"]
        with torch.no_grad():
            first = model(torch.tensor([[tokenizer.eos_token_id]])).logits[0, -1].double().log_softmax(-1)
            later = model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
        losses += [-float(first[ids[0]]), *(-float(later[place, token]) for place, token in enumerate(ids[1:]))]
    subject = CausalSubject(model, tokenizer, torch.device("cpu"), lambda: None, batch_size=2)
    items = _items()
    scores = CAUSAL.score(subject, items)
    assert scores[:, 1].sum() == len(losses)
    np.testing.assert_allclose(
        CAUSAL.level(items, scores, np.ones((1, 3))), [math.exp(sum(losses) / len(losses))], rtol=1e-5
    )


def test_pseudo_perplexity_equals_a_plain_loop() -> None:
    """Each word is masked alone; tokens around the text are not asked for."""
    tokenizer = whole_words(" ".join(TEXTS).split(), masked=True)
    model = bert(tokenizer).eval()
    losses = []
    for text in TEXTS:
        ids = tokenizer(text)["input_ids"]
        for place in range(1, len(ids) - 1):
            copy = torch.tensor([[*ids[:place], tokenizer.mask_token_id, *ids[place + 1 :]]])
            with torch.no_grad():
                losses.append(-float(model(copy).logits[0, place].double().log_softmax(-1)[ids[place]]))
    subject = MaskedSubject(model, tokenizer, torch.device("cpu"), lambda: None, batch_size=4)
    items = _items()
    scores = MASKED.score(subject, items)
    np.testing.assert_allclose(
        MASKED.level(items, scores, np.ones((1, 3))), [math.exp(sum(losses) / len(losses))], rtol=1e-5
    )


def test_the_loss_is_a_ratio_under_equal_weights() -> None:
    """After by before less one: two per cent worse is .02, better is below 0, and draws take whole texts."""
    items = _items()
    before = np.array([[8.0, 4], [4, 2], [0, 1]])
    after = before + np.array([[0.4, 0], [-0.2, 0], [0, 0]])
    weights = np.array([[1.0, 1, 1], [2, 0, 0], [0, 1, 0], [0, 0, 0]])
    expected = [math.exp(0.2 / 7) - 1, math.exp(0.1) - 1, math.exp(-0.1) - 1, math.nan]
    np.testing.assert_allclose(CAUSAL.loss(items, before, after, weights), expected)
    np.testing.assert_allclose(CAUSAL.level(items, before, weights)[:2], [math.exp(12 / 7), math.exp(2)])


def test_rows_come_before_neutral_sentences() -> None:
    """Texts of the user are measured where there are any, each once; else the lexicon's sentences; else nothing."""
    lexicon = Lexicon("age", "en", ("old", "young"), (), neutral=("tea is hot", "ink is blue", "tea is hot"))
    part = Part(Material.from_rows([Text("snow"), Text("rain"), Text("snow")]), {"age": lexicon})
    found = MASKED.items(part)
    assert isinstance(found, Items)
    assert found.content == found.clusters == ("snow", "rain")
    neutral = CAUSAL.items(Part(Material(), {"age": lexicon}))
    assert isinstance(neutral, Items)
    assert neutral.content == ("tea is hot", "ink is blue")
    assert isinstance(CAUSAL.items(Part(Material(), {})), Missing)
