# SPDX-License-Identifier: Apache-2.0
"""The encoder of an index or of demonstrations: the job's auxiliary model, with pooling and prompts as its files say.

A bare encoder gets the mean of its tokens (`debias/subjects/pipeline.py`). Where `config_sentence_transformers.json`
has prompts called query and document (or passage), they are put before questions and passages.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from cloister_workers.trainer.adapt import attach_saved
from cloister_workers.trainer.debias.subjects.encoder import EncoderSubject
from cloister_workers.trainer.debias.subjects.load import weights_digest
from cloister_workers.trainer.debias.subjects.pipeline import SentenceEncoder, read_pipeline
from cloister_workers.trainer.forward import unwrapped
from cloister_workers.trainer.method import AuxiliaryModel
from cloister_workers.trainer.model import Base, longest_sequence

_UNBOUNDED = 2**30


@dataclass(frozen=True)
class Encoder:
    """Texts to vectors of length 1."""

    subject: EncoderSubject
    digest: str
    """SHA-256 over all its weights: vectors of two encoders cannot be compared."""
    longest: int
    """Tokens of a text at most, special tokens and the prompt of passages left out."""

    def questions(self, texts: Sequence[str]) -> torch.Tensor:
        """float32 [n, d]."""
        return self._embed(texts, _prompt(self.subject.model, "query"))

    def passages(self, texts: Sequence[str]) -> torch.Tensor:
        """float32 [n, d]."""
        return self._embed(texts, _prompt(self.subject.model, "document", "passage"))

    @property
    def tokenizer(self) -> Any:  # noqa: ANN401 - transformers' own type is dynamic
        """The encoder's own, with offsets."""
        return self.subject.tokenizer

    def _embed(self, texts: Sequence[str], prompt: str) -> torch.Tensor:
        found = torch.from_numpy(self.subject.embed([prompt + text for text in texts])).float()
        return functional.normalize(found, dim=-1)


def load_encoder(found: AuxiliaryModel, device: torch.device, poll: Callable[[], None]) -> Encoder:
    """The encoder of the second model's folder; `poll` is called before every forward pass.

    Raises TrainerError MODEL_INVALID where the folder is no encoder.
    """
    model, tokenizer = read_pipeline(Path(found.folder))
    if found.adapter:
        model.transformer = attach_saved(Base(model.transformer, ()), Path(found.adapter), 0.0).requires_grad_(False)
    model = model.to(device).eval()
    bound = longest_sequence(
        unwrapped(model.transformer).config, tokenizer, int(model.settings.get("max_seq_length") or _UNBOUNDED)
    )
    subject = EncoderSubject(model, tokenizer, device, poll, max_seq_length=bound)
    prompt = model.prompt + _prompt(model, "document", "passage")
    return Encoder(subject, weights_digest(subject), bound - len(tokenizer(prompt)["input_ids"]))


def _prompt(model: SentenceEncoder, *names: str) -> str:
    """What goes before a text of this kind; nothing where the encoder puts its default prompt before every text."""
    prompts = model.top.get("prompts") or {}
    known = [str(prompts[name]) for name in names if name in prompts]
    return known[0] if known and not model.prompt else ""
