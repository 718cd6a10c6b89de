# SPDX-License-Identifier: Apache-2.0
"""Direct preference optimisation (Rafailov et al. 2023, arXiv:2305.18290, eq. 7) of {prompt, chosen, rejected}.

With pi the model, ref the model before training, and r(y) = log pi(y | prompt) - log ref(y | prompt), summed over the
completion's tokens:

    loss = -c log sigmoid(beta (r(chosen) - r(rejected))) - (1 - c) log sigmoid(beta (r(rejected) - r(chosen)))
           - sft * log pi(chosen | prompt) / tokens of chosen

c is 1 unless a pair is known to be preferred with another probability (conservative DPO); its loss is then least at
beta (r(chosen) - r(rejected)) = logit c. Log-probabilities of ref are computed once, before training (`scored`), and
kept. `prompt` and the completions are texts, or lists of messages, as in `chat.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch.nn import functional

from cloister_workers.messages import MetricName, Metrics, RowReason
from cloister_workers.trainer import metrics
from cloister_workers.trainer.example import Example, Outcome, digest_of
from cloister_workers.trainer.objectives.supervised import Supervised
from cloister_workers.trainer.packing import best_fit_decreasing


@dataclass(frozen=True)
class Reference:
    """What is known of a pair before training."""

    chosen: float
    """Log-probability of the completion, nats."""
    rejected: float
    certainty: float = 1.0
    """Probability that the chosen completion is the better one."""

    @property
    def margin(self) -> float:
        """By how much the model prefers the chosen completion before training, nats."""
        return self.chosen - self.rejected


@dataclass(frozen=True)
class Preference:
    """Pairs of completions; `likelihood` reads and weighs each of them. An example's digest is its key in
    `reference`, which must be filled before the first outcome.
    """

    likelihood: Supervised
    beta: float = 0.1
    sft: float = 0.0
    reference: Mapping[bytes, Reference] = field(default_factory=dict)

    def read(self, rows: Sequence[dict[str, object]]) -> list[Example | RowReason]:
        return [self._example(row) for row in rows]

    def _example(self, row: dict[str, object]) -> Example | RowReason:
        sides = []
        for key in ("chosen", "rejected"):
            if key not in row:
                return RowReason.MISSING_KEY
            read = self.likelihood.reader.read({"prompt": row.get("prompt"), "completion": row[key]})
            if isinstance(read, RowReason):
                return RowReason.MISSING_KEY if "prompt" not in row else read
            sides.append(read)
        chosen, rejected = sides
        return replace(chosen, other=rejected, digest=digest_of(chosen.digest.hex(), rejected.digest.hex()))

    def micro_batches(self, batch: Sequence[Example]) -> list[list[Example]]:
        sizes = [example.size for example in batch]
        rows = best_fit_decreasing(sizes, max(2 * self.likelihood.row_tokens, *sizes, 0))
        return [[batch[index] for index in row] for row in rows]

    def weight(self, example: Example) -> int:
        return 1

    def log_probs(self, model: torch.nn.Module, examples: Sequence[Example]) -> tuple[torch.Tensor, torch.Tensor]:
        """Of the chosen and of the rejected completions given their prompts, nats, float32 [n] each."""
        sequences = [*examples, *(example.other for example in examples if example.other is not None)]
        chosen, rejected = (-self.likelihood.outcome(model, sequences).sums).chunk(2)
        return chosen, rejected

    def scored(
        self, model: torch.nn.Module, examples: Sequence[Example], before_micro_batch: Callable[[], object]
    ) -> Preference:
        """This objective with `model` as it is now for its reference on `examples`, besides those already known."""
        known = dict(self.reference)
        was_training = model.training
        model.eval()
        try:
            with torch.no_grad():
                for micro in self.micro_batches(examples):
                    before_micro_batch()
                    chosen, rejected = self.log_probs(model, micro)
                    for example, yes, no in zip(micro, chosen.tolist(), rejected.tolist(), strict=True):
                        known[example.digest] = Reference(yes, no)
        finally:
            model.train(was_training)
        return replace(self, reference=known)

    def outcome(self, model: torch.nn.Module, examples: Sequence[Example]) -> Outcome:
        chosen, rejected = self.log_probs(model, examples)
        known = [self.reference[example.digest] for example in examples]
        table = [(entry.chosen, entry.rejected, entry.certainty) for entry in known]
        ref_chosen, ref_rejected, certainty = torch.tensor(table, device=chosen.device).unbind(1)
        margin = self.beta * ((chosen - ref_chosen) - (rejected - ref_rejected))
        losses = -certainty * functional.logsigmoid(margin) - (1 - certainty) * functional.logsigmoid(-margin)
        if self.sft:
            tokens = torch.tensor([self.likelihood.weight(example) for example in examples], device=chosen.device)
            losses = losses - self.sft * chosen / tokens
        return Outcome(losses, (margin.detach() > 0).long())

    def score(self, examples: Sequence[Example], sums: Sequence[float], predicted: Sequence[int]) -> Metrics:
        """The loss, and as accuracy the share of pairs whose chosen completion gained on the rejected one."""
        low, high = metrics.wilson_interval(sum(predicted), len(predicted))
        return {
            MetricName.EVAL_LOSS: math.fsum(sums) / len(sums),
            MetricName.EVAL_ROWS: float(len(sums)),
            MetricName.EVAL_ACCURACY: sum(predicted) / len(sums),
            MetricName.EVAL_ACCURACY_CI_LOW: low,
            MetricName.EVAL_ACCURACY_CI_HIGH: high,
        }
