# SPDX-License-Identifier: Apache-2.0
"""Learning from completions that are wanted or not, of rows {prompt, completion, label: bool}: KTO.

The loss is `preference_losses.kto`. Its z, how far the model as a whole has moved, is estimated as TRL does: from
mismatched texts, each prompt with the completion of the row before it (the first with the second's), cut to
max_seq_length tokens; the mean is taken over a micro batch, so give batches of four rows or more. Log-probabilities of
the model before training, matched and mismatched, are computed once (`scored`) and kept.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch

from cloister_workers.messages import MetricName, Metrics, RowReason
from cloister_workers.trainer.example import Example, Outcome, digest_of
from cloister_workers.trainer.forward import evaluating
from cloister_workers.trainer.objectives.pairs import accuracy
from cloister_workers.trainer.objectives.preference_losses import kto, kto_divergence
from cloister_workers.trainer.objectives.supervised import Supervised

WANTED, UNWANTED = "true", "false"


@dataclass(frozen=True)
class UnpairedReference:
    """What is known of a row before training: log-probabilities in nats."""

    own: float
    mismatched: float
    text: Example
    """The row's prompt with another row's completion."""


@dataclass(frozen=True)
class UnpairedPreference:
    """Completions with a verdict; `likelihood` reads and weighs them. An example's digest is its key in `reference`,
    which must be filled before the first outcome.
    """

    likelihood: Supervised
    max_seq_length: int
    beta: float = 0.1
    sft: float = 0.0
    reference: Mapping[bytes, UnpairedReference] = field(default_factory=dict)

    def read(self, rows: Sequence[dict[str, object]]) -> list[Example | RowReason]:
        return [self._example(row) for row in rows]

    def _example(self, row: dict[str, object]) -> Example | RowReason:
        if not {"prompt", "completion", "label"} <= row.keys():
            return RowReason.MISSING_KEY
        if not isinstance(row["label"], bool):
            return RowReason.WRONG_TYPE
        read = self.likelihood.reader.read({"prompt": row["prompt"], "completion": row["completion"]})
        if isinstance(read, RowReason):
            return read
        label = WANTED if row["label"] else UNWANTED
        return replace(read, label=label, digest=digest_of(read.digest.hex(), label))

    def micro_batches(self, batch: Sequence[Example]) -> list[list[Example]]:
        # Every row comes with a mismatched text of at most max_seq_length tokens.
        return self.likelihood.micro_batches(batch)

    def with_micro_batch(self, size: int) -> UnpairedPreference:
        return replace(self, likelihood=self.likelihood.with_micro_batch(size))

    def weight(self, example: Example) -> int:
        return 1

    def scored(
        self, model: torch.nn.Module, examples: Sequence[Example], before_micro_batch: Callable[[], object]
    ) -> UnpairedPreference:
        """This objective with `model` as it is now for its reference on `examples`, which are mismatched here."""
        shifted = [*examples[1:2], *examples[:-1]] if len(examples) > 1 else examples
        texts = [mismatched(one, other, self.max_seq_length) for one, other in zip(examples, shifted, strict=True)]
        own = self._log_probs(model, examples, before_micro_batch)
        other = self._log_probs(model, texts, before_micro_batch)
        table = zip(examples, own, other, texts, strict=True)
        return replace(self, reference={example.digest: UnpairedReference(a, b, text) for example, a, b, text in table})

    def _log_probs(
        self, model: torch.nn.Module, examples: Sequence[Example], before_micro_batch: Callable[[], object]
    ) -> list[float]:
        found: dict[int, float] = {}
        with evaluating(model):
            for micro in self.micro_batches(examples):
                before_micro_batch()
                sums = self.likelihood.outcome(model, micro).sums.tolist()
                found |= {id(example): -value for example, value in zip(micro, sums, strict=True)}
        return [found[id(example)] for example in examples]

    def outcome(self, model: torch.nn.Module, examples: Sequence[Example]) -> Outcome:
        known = [self.reference[example.digest] for example in examples]
        with torch.no_grad():
            moved = -self.likelihood.outcome(model, [entry.text for entry in known]).sums
        policy = -self.likelihood.outcome(model, examples).sums
        own, other = torch.tensor([(entry.own, entry.mismatched) for entry in known], device=policy.device).unbind(1)
        wanted = torch.tensor([example.label == WANTED for example in examples], device=policy.device)
        divergence = kto_divergence(moved, other)
        losses = kto(policy, own, wanted, divergence, self.beta)
        if self.sft:
            counts = torch.tensor([self.likelihood.weight(example) for example in examples], device=policy.device)
            losses = losses - self.sft * torch.where(wanted, policy / counts, 0.0)
        reward = self.beta * (policy.detach() - own)
        return Outcome(losses, torch.stack([reward, reward - self.beta * divergence], dim=1))

    def score(self, examples: Sequence[Example], sums: Sequence[float], predicted: Sequence[list[float]]) -> Metrics:
        """The loss; how often a wanted completion's reward is above beta z and an unwanted one's below; and the mean
        reward of wanted minus that of unwanted completions, where there are both.
        """
        signs = [1.0 if example.label == WANTED else -1.0 for example in examples]
        found = {
            MetricName.EVAL_LOSS: math.fsum(sums) / len(sums),
            **accuracy([sign * above for sign, (_, above) in zip(signs, predicted, strict=True)]),
        }
        means = []
        for side in (1.0, -1.0):
            rewards = [reward for sign, (reward, _) in zip(signs, predicted, strict=True) if sign == side]
            if rewards:
                means.append(sum(rewards) / len(rewards))
        return {**found, MetricName.EVAL_MARGIN: means[0] - means[1]} if len(means) == 2 else found


def mismatched(example: Example, other: Example, max_seq_length: int) -> Example:
    """The prompt of one and the completion of the other, cut to max_seq_length tokens.

    A completion starts at the first learned token, so something of it is always left: a prompt is shorter than its row.
    """
    start, begin = example.learned.index(1), other.learned.index(1)
    return replace(
        example,
        tokens=array("i", [*example.tokens[:start], *other.tokens[begin:]][:max_seq_length]),
        learned=(bytes(start) + other.learned[begin:])[:max_seq_length],
    )
