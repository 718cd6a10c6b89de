# SPDX-License-Identifier: Apache-2.0
"""Models as measures see them. Each answers in evaluation mode, without gradients, and leaves torch's random state
as it was; `poll` is called before every forward pass and may raise to stop.

    classifier.py   ClassifierSubject   texts -> logits
    causal.py       CausalSubject       texts -> log-probabilities of tokens; prompts -> continuations
    masked.py       MaskedSubject       texts -> log-probabilities of masked tokens
    forward.py, likelihood.py           what both of these share
    encoder.py      EncoderSubject      texts -> sentence embeddings
    pipeline.py     what an encoder consists of: transformer, pooling, dense layers; its folder
    folders.py      a version's files <-> a folder that plain libraries load
    load.py         a subject from folders
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch

from cloister_workers.trainer.debias.kinds import FloatArray


class Subject(Protocol):
    """What all subjects have; none of it is set again, so frozen dataclasses answer to it."""

    @property
    def model(self) -> torch.nn.Module: ...

    @property
    def tokenizer(self) -> Any:  # noqa: ANN401 - transformers' own type is dynamic
        ...

    @property
    def device(self) -> torch.device: ...


class Classifies(Subject, Protocol):
    """A sequence classifier."""

    @property
    def labels(self) -> tuple[str, ...]: ...

    def logits(self, texts: Sequence[str]) -> FloatArray:
        """float64 [n, classes], in the order of `labels`."""
        ...


class Continues(Subject, Protocol):
    """A causal language model."""

    def token_log_probs(self, texts: Sequence[str]) -> list[FloatArray]:
        """For each text, the natural log-probability of each of its tokens given those before; the first is given
        the token that the tokenizer itself puts before a text, else the end-of-text, else the beginning token, and is
        left out where there is none of them.
        """
        ...

    def completion_log_probs(self, pairs: Sequence[tuple[str, str]]) -> list[FloatArray]:
        """For each (prompt, completion), the log-probability of each token of the completion; an empty prompt stands
        for the start of a text, which all tokens then are given.
        """
        ...

    def continue_texts(self, prompts: Sequence[str], max_new_tokens: int) -> list[str]:
        """Greedy continuations."""
        ...


class FillsMasks(Subject, Protocol):
    """A masked language model."""

    def encode(self, text: str) -> list[int]:
        """Token ids with special tokens."""
        ...

    def masked_log_probs(
        self, sequences: Sequence[Sequence[int]], positions: Sequence[Sequence[int]]
    ) -> list[FloatArray]:
        """For each sequence of ids and each of its positions: log P(the token there | the sequence with that one
        position masked).
        """
        ...


class Embeds(Subject, Protocol):
    """A sentence encoder."""

    def embed(self, texts: Sequence[str]) -> FloatArray:
        """float64 [n, d], as the model's own pipeline gives them (normalised where it normalises)."""
        ...
