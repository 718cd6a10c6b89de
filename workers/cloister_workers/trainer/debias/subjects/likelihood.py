# SPDX-License-Identifier: Apache-2.0
"""Likelihoods of texts, whichever kind of language model gives them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeGuard

from cloister_workers.trainer.debias.kinds import FloatArray
from cloister_workers.trainer.debias.subjects import Continues, FillsMasks


def fills_masks(subject: Continues | FillsMasks) -> TypeGuard[FillsMasks]:
    """Whether this is a masked model."""
    return hasattr(subject, "masked_log_probs")


def text_log_probs(subject: Continues | FillsMasks, texts: Sequence[str], most: int | None = None) -> list[FloatArray]:
    """For each text the log-probabilities, in nats, of its tokens: causal ones given what stands before, masked ones
    with the token alone masked (pseudo-likelihood). Of a masked text `most` tokens are asked at most, evenly spread.
    """
    if not fills_masks(subject):
        return subject.token_log_probs(texts)  # type: ignore[union-attr]
    special = frozenset(subject.tokenizer.all_special_ids) - {subject.tokenizer.unk_token_id}
    sequences = [subject.encode(text) for text in texts]
    inner = [[place for place, token in enumerate(ids) if token not in special] for ids in sequences]
    return subject.masked_log_probs(sequences, [_spread(places, most) for places in inner])


def likeliest(subject: Continues, prompts: Sequence[str], answers: Sequence[Sequence[str]]) -> list[int]:
    """For each prompt the answer with the highest summed log-likelihood after it and a space: an index, the first of
    equals. An answer without any token cannot win.
    """
    asked = [(prompt, f" {answer}") for prompt, listed in zip(prompts, answers, strict=True) for answer in listed]
    sums = [float(values.sum()) if len(values) else float("-inf") for values in subject.completion_log_probs(asked)]
    found, at = [], 0
    for listed in answers:
        mine = sums[at : at + len(listed)]
        found.append(mine.index(max(mine)))
        at += len(listed)
    return found


def _spread(places: Sequence[int], most: int | None) -> list[int]:
    if most is None or len(places) <= most:
        return list(places)
    return [places[number * len(places) // most] for number in range(most)]
