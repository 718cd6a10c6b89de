# SPDX-License-Identifier: Apache-2.0
"""Learning which of two completions is better, of rows {prompt, chosen, rejected}; for kto see `kto.py`.

The loss of a pair is one of `preference_losses.py` and, with `sft`, sft * -log pi(chosen | prompt) / tokens of chosen.
Log-probabilities of the model before training, where the loss needs them, are computed once (`scored`) and kept.
Both sequences of a pair stand in one packed row. `prompt` and the completions are texts, or lists of messages, as in
`chat.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch

from cloister_workers.errors import SpecError
from cloister_workers.messages import FailureCode, MetricName, Metrics, RowReason, SpecField
from cloister_workers.trainer.example import Example, Outcome
from cloister_workers.trainer.forward import evaluating
from cloister_workers.trainer.method import Settling, Setup, TrainingMethod
from cloister_workers.trainer.objectives.chat import ChatReader
from cloister_workers.trainer.objectives.kto import UnpairedPreference
from cloister_workers.trainer.objectives.pairs import packed_chains, pair_scores, read_pair, refuse_truncation, sides
from cloister_workers.trainer.objectives.preference_losses import DPO, KTO, LOSSES, PairLoss, Pairs, Weights
from cloister_workers.trainer.objectives.supervised import Supervised
from cloister_workers.trainer.spec import Method, check, read_settings


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
    `reference`, which must be filled before the first outcome where the loss needs it.
    """

    likelihood: Supervised
    beta: float = 0.1
    sft: float = 0.0
    reference: Mapping[bytes, Reference] = field(default_factory=dict)
    loss: PairLoss = DPO
    margin: float = 0.5
    certainty: float = 1.0
    """Of every pair, unless `reference` says otherwise."""

    def read(self, rows: Sequence[dict[str, object]]) -> list[Example | RowReason]:
        return [read_pair(self.likelihood.reader, row) for row in rows]

    def micro_batches(self, batch: Sequence[Example]) -> list[list[Example]]:
        return packed_chains(batch, self.likelihood.row_tokens)

    def with_micro_batch(self, size: int) -> Preference:
        return replace(self, likelihood=self.likelihood.with_micro_batch(size))

    def weight(self, example: Example) -> int:
        return 1

    def log_probs(self, model: torch.nn.Module, examples: Sequence[Example]) -> tuple[torch.Tensor, torch.Tensor]:
        """Of the chosen and of the rejected completions given their prompts, nats, float32 [n] each."""
        chosen, rejected = (-self.likelihood.outcome(model, sides(examples)).sums).chunk(2)
        return chosen, rejected

    def scored(
        self, model: torch.nn.Module, examples: Sequence[Example], before_micro_batch: Callable[[], object]
    ) -> Preference:
        """This objective with `model` as it is now for its reference on `examples`, besides those already known."""
        known = dict(self.reference)
        with evaluating(model):
            for micro in self.micro_batches(examples):
                before_micro_batch()
                chosen, rejected = self.log_probs(model, micro)
                for example, yes, no in zip(micro, chosen.tolist(), rejected.tolist(), strict=True):
                    known[example.digest] = Reference(yes, no, self.certainty)
        return replace(self, reference=known)

    def outcome(self, model: torch.nn.Module, examples: Sequence[Example]) -> Outcome:
        pairs, weights = self._pairs(model, examples), Weights(self.beta, self.margin)
        losses = self.loss.losses(pairs, weights)
        if self.sft:
            losses = losses - self.sft * pairs.chosen / pairs.chosen_tokens
        return Outcome(losses, self.loss.rewards(pairs, weights).detach())

    def _pairs(self, model: torch.nn.Module, examples: Sequence[Example]) -> Pairs:
        chosen, rejected = self.log_probs(model, examples)
        known = self.reference if self.loss.reference else {example.digest: Reference(0.0, 0.0) for example in examples}
        entries = [known[example.digest] for example in examples]
        table = torch.tensor([(entry.chosen, entry.rejected, entry.certainty) for entry in entries])
        counts = torch.tensor([self.likelihood.weight(side) for side in sides(examples)], dtype=torch.float32)
        ref_chosen, ref_rejected, certainty = table.to(chosen.device).unbind(1)
        tokens, other_tokens = counts.to(chosen.device).chunk(2)
        return Pairs(chosen, rejected, tokens, other_tokens, ref_chosen, ref_rejected, certainty)

    def score(self, examples: Sequence[Example], sums: Sequence[float], predicted: Sequence[float]) -> Metrics:
        """The loss, how often the chosen completion is worth more than the rejected one, and by how much on average."""
        return {MetricName.EVAL_LOSS: math.fsum(sums) / len(sums), **pair_scores(predicted)}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The method's own."""

    loss: str = "dpo"
    beta: float = 0.1
    sft: float = 0.0
    margin: float = 0.5
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        known = (*LOSSES, KTO)
        check(self.loss in known, SpecField.LOSS, f"one of {', '.join(known)}", self.loss)
        check(0 < self.beta <= 1000, SpecField.BETA, "a number above 0, at most 1000", self.beta)
        check(0 <= self.sft <= 100, SpecField.SFT, "0 to 100", self.sft)
        check(0 <= self.margin <= 100, SpecField.MARGIN, "0 to 100", self.margin)
        check(0 <= self.label_smoothing <= 0.5, SpecField.LABEL_SMOOTHING, "0 to 0.5", self.label_smoothing)
        if self.label_smoothing and self.loss != "dpo":
            raise SpecError(
                FailureCode.SPEC_INVALID,
                SpecField.LABEL_SMOOTHING,
                f"label_smoothing is {self.label_smoothing} with loss {self.loss}; it belongs to dpo, leave it out",
            )


def _objective(setup: Setup) -> Preference | UnpairedPreference:
    refuse_truncation(setup)
    settings, wanted = read_settings(Settings, setup.settings), setup.hyperparameters
    reader = ChatReader(setup.tokenizer, wanted.max_seq_length)
    likelihood = Supervised(reader, wanted.micro_batch_size * wanted.max_seq_length, setup.device)
    if settings.loss == KTO:
        return UnpairedPreference(likelihood, wanted.max_seq_length, settings.beta, settings.sft)
    return Preference(
        likelihood,
        settings.beta,
        settings.sft,
        loss=LOSSES[settings.loss],
        margin=settings.margin,
        certainty=1 - settings.label_smoothing,
    )


def _settled(objective: Preference | UnpairedPreference, settling: Settling) -> Preference | UnpairedPreference:
    """With what the model says before its first step."""
    if isinstance(objective, Preference) and not objective.loss.reference:
        return objective
    return objective.scored(settling.model, settling.examples, settling.poll)


METHOD = TrainingMethod(name=Method.PREFERENCE, objective=_objective, settled=_settled, chat=True)
