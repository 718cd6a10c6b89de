# SPDX-License-Identifier: Apache-2.0
"""The masked subject against plain calls of transformers, one masked copy at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from cloister_workers.errors import TrainerError
from cloister_workers.messages import FailureCode
from cloister_workers.trainer.debias.subjects.likelihood import text_log_probs
from cloister_workers.trainer.debias.subjects.masked import MaskedSubject
from tiny_language_models import bert, byte_pairs, gpt2, whole_words

TEXTS = ("the nurse met a carpenter because she was late .", "he was early", "late")


def _subject(batch_size: int = 32, max_seq_length: int = 512) -> MaskedSubject:
    tokenizer = whole_words(" ".join(TEXTS).split(), masked=True)
    return MaskedSubject(bert(tokenizer), tokenizer, torch.device("cpu"), lambda: None, max_seq_length, batch_size)


def _plain(subject: MaskedSubject, ids: list[int], place: int) -> float:
    masked = torch.tensor([[*ids[:place], subject.tokenizer.mask_token_id, *ids[place + 1 :]]])
    subject.model.eval()
    with torch.no_grad():
        return float(subject.model(masked).logits[0, place].double().log_softmax(-1)[ids[place]])


@pytest.mark.parametrize("batch_size", [1, 4])
def test_log_probs_equal_plain_calls(batch_size: int) -> None:
    """Every asked position of every sequence is masked alone, in batches as by itself."""
    subject = _subject(batch_size)
    sequences = [subject.encode(text) for text in TEXTS]
    positions = [[3, 1, 2, 5], [], [1]]
    found = subject.masked_log_probs(sequences, positions)
    assert [len(values) for values in found] == [4, 0, 1]
    for ids, places, values in zip(sequences, positions, found, strict=True):
        np.testing.assert_allclose(values, [_plain(subject, ids, place) for place in places], atol=1e-5)


@pytest.mark.parametrize("head", ["its own", "none"])
def test_logits_are_computed_where_they_are_needed(head: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One position a copy where the head is a module, and the same answers where it is none."""
    subject = _subject()
    ids = subject.encode(TEXTS[0])
    expected = [_plain(subject, ids, place) for place in (1, 4)]
    model: Any = subject.model
    shapes: list[tuple[int, ...]] = []
    model.get_output_embeddings().register_forward_hook(lambda _, args, out: shapes.append(tuple(out.shape[:2])))
    if head == "none":
        monkeypatch.setattr(model, "get_output_embeddings", lambda: None)
    (values,) = subject.masked_log_probs([ids], [[1, 4]])
    np.testing.assert_allclose(values, expected, atol=1e-5)
    assert shapes == [(2, len(ids) if head == "none" else 1)]


def test_texts_have_special_tokens_and_a_limit() -> None:
    """A text is encoded as the tokenizer does, cut to the longest length with its closing token kept."""
    subject = _subject(max_seq_length=5)
    ids = subject.encode(TEXTS[0])
    assert len(ids) == 5
    assert (ids[0], ids[-1]) == (subject.tokenizer.cls_token_id, subject.tokenizer.sep_token_id)
    assert _subject().encode(TEXTS[1]) == subject.tokenizer(TEXTS[1])["input_ids"]
    assert len(_subject().encode("late " * 200)) <= 64


def test_a_text_is_asked_token_by_token() -> None:
    """A pseudo-likelihood masks every token but those around the text, or so many of them, evenly spread."""
    subject = _subject()
    every, one = text_log_probs(subject, TEXTS[:2])
    ids = subject.encode(TEXTS[0])
    assert (len(every), len(one)) == (len(ids) - 2, 3)
    np.testing.assert_allclose(every[0], _plain(subject, ids, 1), atol=1e-5)
    (some,) = text_log_probs(subject, TEXTS[:1], most=5)
    np.testing.assert_allclose(some, every[[0, 2, 4, 6, 8]], atol=1e-6)


def test_an_unknown_word_is_asked_for_too() -> None:
    """The token for unknown words is special to the tokenizer, but part of the text."""
    (values,) = text_log_probs(_subject(), ["the zebra was late"])
    assert len(values) == 4


def test_nothing_of_model_or_random_state_is_changed() -> None:
    """Dropout is off while measuring; mode and random state are afterwards as they were."""
    subject = _subject()
    subject.model.train()
    state = torch.get_rng_state()
    ids = subject.encode(TEXTS[0])
    first, again = (subject.masked_log_probs([ids], [[1, 2]])[0] for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert subject.model.training
    assert torch.equal(torch.get_rng_state(), state)


def test_a_tokenizer_without_mask_is_refused() -> None:
    """A causal model's tokenizer cannot ask a masked model anything."""
    tokenizer: Any = byte_pairs(TEXTS)
    with pytest.raises(TrainerError, match="no mask token") as caught:
        MaskedSubject(gpt2(tokenizer), tokenizer, torch.device("cpu"), lambda: None)
    assert caught.value.code is FailureCode.MODEL_INVALID
