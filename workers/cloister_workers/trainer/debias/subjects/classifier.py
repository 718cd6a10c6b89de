# SPDX-License-Identifier: Apache-2.0
"""A sequence classifier as measures see it: texts go in, logits come out.

Several measures ask for the same texts. `Remembering` answers them from one run of the model, as long as the model
stands still.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from cloister_workers.trainer.debias.kinds import FloatArray
from cloister_workers.trainer.debias.subjects import Classifies
from cloister_workers.trainer.forward import evaluating
from cloister_workers.trainer.padding import padded


@dataclass(frozen=True)
class ClassifierSubject:
    """A `transformers` classifier, adapted by peft or not, with its tokenizer."""

    model: torch.nn.Module
    tokenizer: Any
    device: torch.device
    poll: Callable[[], object]
    """Called before every forward pass; may raise to stop."""
    max_seq_length: int
    """Tokens, special ones included; longer texts are cut, as in training."""
    batch_size: int
    labels: tuple[str, ...]
    """Names of the classes in the order of the logits."""

    def logits(self, texts: Sequence[str]) -> FloatArray:
        """float64 [n, classes] in the order of `texts`.

        In evaluation mode and without gradients; the mode and torch's random state are afterwards as they were.
        Texts go through in order of length, so that little padding is computed.
        """
        found: FloatArray = np.zeros((len(texts), len(self.labels)))
        if not texts:
            return found
        ids = self.tokenizer(list(texts), truncation=True, max_length=self.max_seq_length)["input_ids"]
        order = sorted(range(len(texts)), key=lambda index: len(ids[index]))
        with evaluating(self.model):
            for start in range(0, len(order), self.batch_size):
                self.poll()
                chosen = order[start : start + self.batch_size]
                found[chosen] = self._forward([ids[index] for index in chosen])
        return found

    def _forward(self, ids: Sequence[Sequence[int]]) -> FloatArray:
        logits = self.model(**padded(ids, int(self.tokenizer.pad_token_id), self.device)).logits
        answer: FloatArray = logits.double().cpu().numpy()
        return answer


@dataclass(frozen=True)
class Remembering:
    """A classifier that is asked for every text once. For measuring alone: training would make its memory stale."""

    inner: Classifies
    _seen: dict[str, FloatArray] = field(default_factory=dict, init=False, repr=False)

    @property
    def model(self) -> torch.nn.Module:
        """The classifier's."""
        return self.inner.model

    @property
    def tokenizer(self) -> Any:  # noqa: ANN401 - transformers' own type is dynamic
        """The classifier's."""
        return self.inner.tokenizer

    @property
    def device(self) -> torch.device:
        """The classifier's."""
        return self.inner.device

    @property
    def labels(self) -> tuple[str, ...]:
        """The classifier's."""
        return self.inner.labels

    def logits(self, texts: Sequence[str]) -> FloatArray:
        new = [text for text in dict.fromkeys(texts) if text not in self._seen]
        self._seen.update(zip(new, self.inner.logits(new), strict=True))
        found: FloatArray = np.zeros((len(texts), len(self.labels)))
        for place, text in enumerate(texts):
            found[place] = self._seen[text]
        return found
