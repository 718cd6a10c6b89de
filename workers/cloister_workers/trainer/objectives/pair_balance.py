# SPDX-License-Identifier: Apache-2.0
"""Pair balance: a model should find two texts that differ in the group alone equally likely.

After the loss of BiasEdit (Xu et al. 2025, arXiv:2503.08588), here on whatever is trained, an adapter as a rule. An
example is a chain of texts, each with the `other` one that it is compared with: a couple (s, a), or several couples
(s1, a1, s2, a2, ...). With LL the summed log-likelihood of a text in nats and d the mean of LL(s) - LL(a) over its
couples,

    loss = 2 d tanh(d / 2)

which is KL(p || q) + KL(q || p) of the choice p = (sigmoid(d), sigmoid(-d)) between the texts and the reversed choice
q: 0 at d = 0 alone, like d squared near it, like 2 |d| far from it. With two couples, the groups changed and the
attribute changed as well, what makes one group's words likelier everywhere cancels in d.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from cloister_workers.messages import MetricName, Metrics, RowReason
from cloister_workers.trainer.example import Example, Outcome, digest_of
from cloister_workers.trainer.objectives.pairs import packed_chains
from cloister_workers.trainer.objectives.supervised import Supervised


@dataclass(frozen=True)
class PairBalance:
    """Rows of `texts`, an even number of them; one of a `text` alone is read for `anchor.Retaining`."""

    likelihood: Supervised

    def read(self, rows: Sequence[dict[str, object]]) -> list[Example | RowReason]:
        return [self._example(row) for row in rows]

    def _example(self, row: dict[str, object]) -> Example | RowReason:
        texts = row.get("texts")
        if not isinstance(texts, list | tuple):
            return self.likelihood.reader.read(row)
        if not texts or len(texts) % 2:
            return RowReason.WRONG_TYPE
        chain: Example | None = None
        for text in reversed(texts):
            read = self.likelihood.reader.read({"text": text})
            if isinstance(read, RowReason):
                return read
            chain = replace(read, other=chain, digest=digest_of(read.digest.hex(), chain and chain.digest.hex()))
        return chain if chain is not None else RowReason.EMPTY_TEXT

    def micro_batches(self, batch: Sequence[Example]) -> list[list[Example]]:
        return packed_chains(batch, self.likelihood.row_tokens)

    def weight(self, example: Example) -> int:
        return 1

    def leans(self, model: torch.nn.Module, examples: Sequence[Example]) -> torch.Tensor:
        """D of each chain, nats a text, float32 [n]."""
        chains = [example.chain for example in examples]
        sums = -self.likelihood.outcome(model, [text for chain in chains for text in chain]).sums
        parts = torch.split(sums, [len(chain) for chain in chains])
        return torch.stack([(part[0::2] - part[1::2]).mean() for part in parts])

    def outcome(self, model: torch.nn.Module, examples: Sequence[Example]) -> Outcome:
        d = self.leans(model, examples)
        return Outcome(2 * d * torch.tanh(d / 2), (d.detach() > 0).long())

    def score(self, examples: Sequence[Example], sums: Sequence[float], predicted: Sequence[int]) -> Metrics:
        return {MetricName.EVAL_LOSS: math.fsum(sums) / len(sums), MetricName.EVAL_ROWS: float(len(sums))}
