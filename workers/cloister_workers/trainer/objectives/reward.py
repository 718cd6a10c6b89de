# SPDX-License-Identifier: Apache-2.0
"""A reward model: a sequence classifier of one output, learned from rows of prompt, chosen and rejected.

With s(x, y) the score of a completion y of a prompt x, the loss of a pair is that of Bradley and Terry (1952), as in
Ouyang et al. 2022 (arXiv:2203.02155, eq. 1):

    loss = -log sigmoid(s(prompt, chosen) - s(prompt, rejected))

Prompt and completions are texts, or lists of messages, as in `chat.py`. A causal model scores at the last token that
is no padding, an encoder where transformers has it score. Both sequences of a pair go through the model together,
padded at the right to the longest of their micro batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch.nn import functional

from cloister_workers.errors import SpecError
from cloister_workers.messages import FailureCode, MetricName, Metrics, RowReason, SpecField
from cloister_workers.trainer.example import Example, Outcome
from cloister_workers.trainer.method import Setup, TrainingMethod
from cloister_workers.trainer.model import Base, load_classifier
from cloister_workers.trainer.objectives.chat import ChatReader
from cloister_workers.trainer.objectives.pairs import pair_scores, read_pair, refuse_truncation, sides
from cloister_workers.trainer.padding import padded
from cloister_workers.trainer.spec import Method

LABELS = ("reward",)
"""What the one output is called in the exported configuration."""


@dataclass(frozen=True)
class RewardModel:
    """Pairs of texts to per-pair losses."""

    reader: ChatReader
    micro_batch_size: int
    device: torch.device

    def read(self, rows: Sequence[dict[str, object]]) -> list[Example | RowReason]:
        return [read_pair(self.reader, row) for row in rows]

    def micro_batches(self, batch: Sequence[Example]) -> list[list[Example]]:
        size = self.micro_batch_size
        return [list(batch[start : start + size]) for start in range(0, len(batch), size)]

    def with_micro_batch(self, size: int) -> RewardModel:
        return replace(self, micro_batch_size=size)

    def weight(self, example: Example) -> int:
        return 1

    def outcome(self, model: torch.nn.Module, examples: Sequence[Example]) -> Outcome:
        pad = int(self.reader.tokenizer.pad_token_id)
        chosen, rejected = scores(model, [side.tokens for side in sides(examples)], pad, self.device).chunk(2)
        margin = chosen - rejected
        return Outcome(-functional.logsigmoid(margin), margin.detach())

    def score(self, examples: Sequence[Example], sums: Sequence[float], predicted: Sequence[float]) -> Metrics:
        """The loss, how often the chosen completion has the higher score, and by how much on average."""
        return {MetricName.EVAL_LOSS: math.fsum(sums) / len(sums), **pair_scores(predicted)}


def scores(model: torch.nn.Module, sequences: Sequence[Sequence[int]], pad: int, device: torch.device) -> torch.Tensor:
    """The one output of each sequence, float32 [n], from one forward pass padded at the right."""
    logits: torch.Tensor = model(**padded(sequences, pad, device)).logits
    return logits[:, 0].float()


def _objective(setup: Setup) -> RewardModel:
    refuse_truncation(setup)
    if len(setup.labels) > 1:
        raise SpecError(
            FailureCode.SPEC_INVALID,
            SpecField.METHOD,
            f"the version is a classifier of {len(setup.labels)} classes, a reward model has one output; name a "
            "reward model, or the base model",
        )
    wanted = setup.hyperparameters
    return RewardModel(ChatReader(setup.tokenizer, wanted.max_seq_length), wanted.micro_batch_size, setup.device)


def _load(model_dir: str, objective: RewardModel, device: torch.device) -> Base:
    return load_classifier(model_dir, LABELS, int(objective.reader.tokenizer.pad_token_id), device)


METHOD = TrainingMethod(name=Method.REWARD, objective=_objective, load=_load, padded=True, chat=True)
