# SPDX-License-Identifier: Apache-2.0
"""Labelling of tokens, entities above all: rows of `tokens` and `tags`, two lists of one length.

Tags are O, B-type and I-type (`entities.py`); the classes are the tags of all training rows, in code point order. A
word's label is learned at its first sub-token, others are left out of the loss (Devlin et al. 2019, 5.3). Rows are cut
to max_seq_length tokens, special tokens included, or refused where the specification says so; in evaluations a word
beyond the cut is predicted as O, so that its entities are missed. Other keys are ignored.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from cloister_workers.errors import TrainerError
from cloister_workers.messages import FailureCode, FailureNumber, MetricName, Metrics, RowReason
from cloister_workers.trainer import entities
from cloister_workers.trainer.bootstrap import Sums, row_intervals
from cloister_workers.trainer.example import Example, Outcome, digest_of
from cloister_workers.trainer.method import Setup, TrainingMethod
from cloister_workers.trainer.metrics import with_ends
from cloister_workers.trainer.model import Base, load_tagger, need_encoder
from cloister_workers.trainer.padding import padded_examples, slices
from cloister_workers.trainer.rows import checked_text, text_of
from cloister_workers.trainer.spec import REFUSE, Method


@dataclass(frozen=True, slots=True)
class Tagged(Example):
    """Words with a tag each, and where the first sub-tokens of the words are that were not cut off: word and place in
    `tokens`.
    """

    words: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    firsts: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class TokenClassification:
    """Each word to one of `labels`, which are empty while the training rows are read. `space` is put before every
    word but the first.
    """

    tokenizer: Any
    max_seq_length: int
    micro_batch_size: int
    device: torch.device
    labels: tuple[str, ...] = ()
    refuse: bool = False
    space: str = ""

    def read(self, rows: Sequence[dict[str, object]]) -> list[Example | RowReason]:
        return [self._example(row) for row in rows]

    def _example(self, row: dict[str, object]) -> Example | RowReason:
        words, tags = _words(row, "tokens"), _words(row, "tags")
        for found in (words, tags):
            if isinstance(found, RowReason):
                return found
        words, tags = list(words), list(tags)
        if len(words) != len(tags):
            return RowReason.LENGTH_MISMATCH
        if not all(map(entities.is_tag, tags)):
            return RowReason.BAD_TAG
        if self.labels and not set(tags) <= set(self.labels):
            return RowReason.UNKNOWN_LABEL
        read = self._encoded(words)
        if isinstance(read, RowReason):
            return read
        return replace(read, digest=digest_of(words, tags), tags=tuple(tags))

    def asked(self, row: dict[str, object]) -> Tagged | RowReason:
        """A row whose tags are wanted: of `tokens`, or of a `text`, whose tokens are what white space parts."""
        if "tokens" in row or "text" not in row:
            words = _words(row, "tokens")
        else:
            text = text_of(row, "text")
            words = text if isinstance(text, RowReason) else text.split()
        return words if isinstance(words, RowReason) else self._encoded(words)

    def _encoded(self, words: list[str]) -> Tagged | RowReason:
        """Words as tokens, each O as long as nothing else is known of it."""
        spaced = [words[0], *(self.space + word for word in words[1:])]
        whole = self.tokenizer(spaced, is_split_into_words=True)
        truncated = len(whole["input_ids"]) > self.max_seq_length
        if truncated and self.refuse:
            return RowReason.TOO_LONG
        if truncated:
            limit = self.max_seq_length
            whole = self.tokenizer(spaced, is_split_into_words=True, truncation=True, max_length=limit)
        owners = whole.word_ids()
        firsts = tuple(sorted({owner: owners.index(owner) for owner in owners if owner is not None}.items()))
        if not firsts:
            return RowReason.EMPTY_TEXT
        return Tagged(
            tokens=array("i", whole["input_ids"]),
            group=digest_of(words),
            digest=digest_of(words),
            truncated=truncated,
            words=tuple(words),
            tags=(entities.OUTSIDE,) * len(words),
            firsts=firsts,
        )

    def micro_batches(self, batch: Sequence[Example]) -> list[list[Example]]:
        return slices(batch, self.micro_batch_size)

    def with_micro_batch(self, size: int) -> TokenClassification:
        return replace(self, micro_batch_size=size)

    def weight(self, example: Example) -> int:
        return len(_tagged(example).firsts)

    def outcome(self, model: torch.nn.Module, examples: Sequence[Example]) -> Outcome:
        """`predicted` is the class at every place: [n, longest]."""
        logits = self._logits(model, examples)
        number = {label: index for index, label in enumerate(self.labels)}
        wanted = [
            (owner, place, number[example.tags[word]])
            for owner, example in enumerate(map(_tagged, examples))
            for word, place in example.firsts
        ]
        owners, places, true = torch.tensor(wanted, device=self.device).unbind(1)
        losses = functional.cross_entropy(logits[owners, places], true, reduction="none")
        sums = torch.zeros(len(examples), device=self.device).index_add(0, owners, losses)
        return Outcome(sums, logits.detach().argmax(-1))

    def tags(self, model: torch.nn.Module, examples: Sequence[Example]) -> list[list[str]]:
        """The tag of every word of each example; O for words that were cut off."""
        said = self._logits(model, examples).argmax(-1).tolist()
        return [self._tags(_tagged(example), line) for example, line in zip(examples, said, strict=True)]

    def _logits(self, model: torch.nn.Module, examples: Sequence[Example]) -> torch.Tensor:
        """Float32 [n, longest, labels]."""
        logits: torch.Tensor = model(**padded_examples(examples, self.tokenizer.pad_token_id, self.device)).logits
        return logits.float()

    def score(self, examples: Sequence[Example], sums: Sequence[float], predicted: Sequence[Any]) -> Metrics:
        rows = [_tagged(example) for example in examples]
        said = [self._tags(row, line) for row, line in zip(rows, predicted, strict=True)]
        table = [
            (*entities.counts(tags, row.tags), *_hits(tags, row.tags)) for row, tags in zip(rows, said, strict=True)
        ]
        names = (
            MetricName.EVAL_PRECISION,
            MetricName.EVAL_RECALL,
            MetricName.EVAL_F1,
            MetricName.EVAL_TOKEN_ACCURACY,
        )
        whole = _shares(np.asarray(table, dtype=np.float64).sum(0, keepdims=True))
        found = zip(names, whole, row_intervals(table, _shares), strict=True)
        return {
            MetricName.EVAL_LOSS: sum(sums) / sum(len(row.firsts) for row in rows),
            MetricName.EVAL_ROWS: float(len(rows)),
            **{
                key: value
                for name, (figure,), interval in found
                for key, value in with_ends(name, float(figure), interval).items()
            },
        }

    def _tags(self, row: Tagged, classes: Sequence[int]) -> list[str]:
        tags = [entities.OUTSIDE] * len(row.tags)
        for word, place in row.firsts:
            tags[word] = self.labels[classes[place]]
        return tags


def _words(row: dict[str, object], key: str) -> list[str] | RowReason:
    if key not in row:
        return RowReason.MISSING_KEY
    value = row[key]
    if not isinstance(value, list):
        return RowReason.WRONG_TYPE
    words: list[str] = []
    for entry in value:
        word = checked_text(entry)
        if isinstance(word, RowReason):
            return word
        words.append(word)
    return words or RowReason.EMPTY_TEXT


def _tagged(example: Example) -> Tagged:
    if not isinstance(example, Tagged):
        raise TypeError("an example of another method; read the rows with this objective")
    return example


def _hits(said: Sequence[str], true: Sequence[str]) -> tuple[int, int]:
    """Tags that are right, and tags."""
    return sum(p == t for p, t in zip(said, true, strict=True)), len(true)


def _shares(sums: Sums) -> list[Sums]:
    """Precision, recall and F1 of entities (0 where there is nothing, as conlleval has it), and the share of tags that
    are right.
    """
    right, claimed, there, hits, tags = sums.T
    scores: list[Sums] = [
        right / claimed.clip(min=1),
        right / there.clip(min=1),
        2 * right / (claimed + there).clip(min=1),
        hits / tags.clip(min=1),
    ]
    return scores


def _objective(setup: Setup) -> TokenClassification:
    need_encoder(setup.config)
    wanted = setup.hyperparameters
    return TokenClassification(
        setup.tokenizer,
        wanted.max_seq_length,
        wanted.micro_batch_size,
        setup.device,
        setup.labels,
        setup.too_long == REFUSE,
        word_space(setup.tokenizer),
    )


def word_space(tokenizer: Any) -> str:  # noqa: ANN401 - transformers' own type is dynamic
    """What a word needs before it so that its tokens are those it has in a sentence: a space for byte-level
    tokenizers, which take it for a part of the word; others put words apart themselves.
    """

    def tokens(text: str) -> list[str]:
        return list(tokenizer.tokenize(text, add_special_tokens=False))

    apart, spaced = tokens("a") + tokens("a"), tokens("a") + tokens(" a")
    return " " if apart != tokens("a a") == spaced else ""


def _fitted(objective: TokenClassification, examples: Sequence[Example]) -> TokenClassification:
    labels = objective.labels or tuple(sorted({tag for example in examples for tag in _tagged(example).tags}))
    if len(labels) < 2:
        raise TrainerError(
            FailureCode.TOO_FEW_LABELS,
            f"the training rows have {len(labels)} tags; token classification needs 2 or more",
            {FailureNumber.LABELS: len(labels)},
        )
    return replace(objective, labels=labels)


def _load(model_dir: str, objective: TokenClassification, device: torch.device) -> Base:
    return load_tagger(model_dir, objective.labels, device)


METHOD = TrainingMethod(name=Method.TOKEN_CLASSIFICATION, objective=_objective, fitted=_fitted, load=_load, padded=True)
