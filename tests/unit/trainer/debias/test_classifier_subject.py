# SPDX-License-Identifier: Apache-2.0
"""A classifier as measures see it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cloister_workers.errors import Cancelled
from cloister_workers.trainer.debias.subjects.classifier import Remembering
from tiny_classifier import Scripted, adapted_subject
from tiny_models import WORDS

TEXTS = [" ".join(WORDS[: 1 + number % 7]) + f" {WORDS[number % 10]}" for number in range(11)]


def test_logits_equal_a_plain_forward_pass_of_each_text(bert_dir):
    """Whatever the batch, a text has the logits that transformers gives for it alone, in the order asked."""
    subject = adapted_subject(bert_dir)
    found = subject.logits(TEXTS)
    subject.model.eval()
    with torch.no_grad():
        alone = [subject.model(**subject.tokenizer(text, return_tensors="pt")).logits[0].tolist() for text in TEXTS]
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, alone, atol=1e-6)
    assert len({tuple(row) for row in found.round(6)}) > 5


def test_no_text_has_no_logits(bert_dir):
    """No text gives no row, of the right width."""
    assert adapted_subject(bert_dir).logits([]).shape == (0, 2)


def test_mode_and_random_state_are_left_alone(bert_dir):
    """A model in training goes on in training, and not one random number is drawn."""
    subject = adapted_subject(bert_dir)
    subject.model.train()
    state = torch.get_rng_state()
    first, second = subject.logits(TEXTS), subject.logits(TEXTS)
    assert subject.model.training
    assert torch.equal(torch.get_rng_state(), state)
    np.testing.assert_array_equal(first, second)
    assert all(parameter.grad is None for parameter in subject.model.parameters())


def test_long_texts_are_cut(bert_dir):
    """A text past max_seq_length is what is left of it."""
    subject = adapted_subject(bert_dir)
    long = " ".join(WORDS[number % 10] for number in range(50))
    cut = " ".join(WORDS[number % 10] for number in range(32))
    np.testing.assert_allclose(subject.logits([long]), subject.logits([cut]), atol=1e-7)


def test_every_forward_pass_asks_first(bert_dir):
    """Eleven texts in batches of four ask three times, and what is raised then stops the work and keeps the mode."""
    asked: list[int] = []

    def poll() -> None:
        asked.append(1)
        if len(asked) == 5:
            raise Cancelled(0)

    subject = adapted_subject(bert_dir, poll=poll)
    subject.model.train()
    subject.logits(TEXTS)
    assert len(asked) == 3
    with pytest.raises(Cancelled):
        subject.logits(TEXTS)
    assert subject.model.training


def test_a_remembering_classifier_asks_for_each_text_once():
    """Texts that come again, in one call or a later one, are answered as before without a second run."""
    asked: list[str] = []

    class Noting(Scripted):
        def logits(self, texts):
            asked.extend(texts)
            return super().logits(texts)

    table = {"one": (1.0, 2.0), "two": (3.0, 4.0), "three": (5.0, 6.0)}
    subject = Remembering(Noting(table))
    np.testing.assert_array_equal(subject.logits(["two", "one", "two"]), [table["two"], table["one"], table["two"]])
    np.testing.assert_array_equal(subject.logits(["three", "one"]), [table["three"], table["one"]])
    assert asked == ["two", "one", "three"]
    assert subject.logits([]).shape == (0, 2)
