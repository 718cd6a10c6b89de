# SPDX-License-Identifier: Apache-2.0
"""A reward model as judge: the job's second model, by its one output."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cloister_workers.errors import TrainerError
from cloister_workers.messages import FailureCode
from cloister_workers.trainer.adapt import attach_saved
from cloister_workers.trainer.method import AuxiliaryModel
from cloister_workers.trainer.model import load_classifier, load_tokenizer, longest_sequence
from cloister_workers.trainer.objectives.reward import LABELS, scores
from cloister_workers.trainer.prompts import Prompt, rendered
from cloister_workers.trainer.rewards import Exercise

_AT_ONCE = 16  # sequences of one forward pass


@dataclass(frozen=True)
class Scorer:
    """Scores answers as `objectives.reward` learned them. Longer ones than the model takes are cut."""

    model: torch.nn.Module
    tokenizer: Any
    longest: int
    device: torch.device
    poll: Callable[[], object]

    def __call__(self, exercises: Sequence[Exercise], answers: Sequence[str]) -> list[float]:
        texts = [self._tokens(exercise.prompt, answer) for exercise, answer in zip(exercises, answers, strict=True)]
        found: list[float] = []
        pad = int(self.tokenizer.pad_token_id)
        for start in range(0, len(texts), _AT_ONCE):
            self.poll()
            with torch.no_grad():
                found += scores(self.model, texts[start : start + _AT_ONCE], pad, self.device).tolist()
        return found

    def _tokens(self, prompt: Prompt, answer: str) -> list[int]:
        """As `ChatReader` makes them of a pair's side; unlike there the answer may be empty."""
        if isinstance(prompt, str):
            tokens = [int(token) for token in self.tokenizer(prompt + answer)["input_ids"]]
            end = self.tokenizer.eos_token_id
            if end is not None and tokens[-1:] != [end]:
                tokens.append(int(end))
        else:
            messages = [*prompt, {"role": "assistant", "content": answer}]
            text = rendered(self.tokenizer, messages, prompt=False)
            tokens = [int(token) for token in self.tokenizer(text, add_special_tokens=False)["input_ids"]]
        return tokens[: self.longest]


def load_scorer(found: AuxiliaryModel, device: torch.device, poll: Callable[[], object]) -> Scorer:
    """The second model of a job, which must be a reward model. Raises TrainerError MODEL_INVALID."""
    own = found.adapter if found.adapter and (Path(found.adapter) / "tokenizer.json").is_file() else found.folder
    tokenizer = load_tokenizer(own, padded=True, chat=True)
    base = load_classifier(found.folder, LABELS, int(tokenizer.pad_token_id), device)
    if found.adapter:
        model = attach_saved(base, Path(found.adapter), 0.0)
    elif base.fresh:
        raise TrainerError(
            FailureCode.MODEL_INVALID,
            "auxiliary_model has no output that scores; name a version that a job of method reward made",
        )
    else:
        model = base.model
    longest = longest_sequence(base.model.config, tokenizer, int(tokenizer.model_max_length))
    return Scorer(model.eval().requires_grad_(False), tokenizer, longest, device, poll)
