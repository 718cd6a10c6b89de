# SPDX-License-Identifier: Apache-2.0
"""Rows of prompt, chosen and rejected, and how well chosen completions do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from cloister_workers.errors import SpecError
from cloister_workers.messages import FailureCode, MetricName, Metrics, RowReason, SpecField
from cloister_workers.trainer import metrics
from cloister_workers.trainer.example import Example, digest_of
from cloister_workers.trainer.method import Setup
from cloister_workers.trainer.objectives.supervised import Reader
from cloister_workers.trainer.packing import best_fit_decreasing
from cloister_workers.trainer.spec import TRUNCATE

TIE = 1e-5
"""Margins of at most this size are none: what is left of equal sums in float32."""


def read_pair(reader: Reader, row: dict[str, object]) -> Example | RowReason:
    """The chosen sequence, with the rejected one as `other`; or why there is no pair."""
    sides = []
    for key in ("chosen", "rejected"):
        if key not in row or "prompt" not in row:
            return RowReason.MISSING_KEY
        read = reader.read({"prompt": row["prompt"], "completion": row[key]})
        if isinstance(read, RowReason):
            return read
        sides.append(read)
    chosen, rejected = sides
    if chosen.tokens == rejected.tokens:
        return RowReason.NOTHING_PREFERRED
    return replace(chosen, other=rejected, digest=digest_of(chosen.digest.hex(), rejected.digest.hex()))


def sides(examples: Sequence[Example]) -> list[Example]:
    """The chosen sequences, then the rejected ones."""
    return [*examples, *(example.other for example in examples if example.other is not None)]


def packed_chains(batch: Sequence[Example], row_tokens: int) -> list[list[Example]]:
    """Micro batches of whole chains: of two rows' tokens at most, or of one chain that is longer."""
    sizes = [example.size for example in batch]
    rows = best_fit_decreasing(sizes, max(2 * row_tokens, *sizes, 0))
    return [[batch[index] for index in row] for row in rows]


def pair_scores(margins: Sequence[float]) -> Metrics:
    """Of the reward of each pair's chosen completion minus that of its rejected one: accuracy and mean.

    A tie counts as half a pair, so a model that is its own reference has accuracy 1/2.
    """
    return {**accuracy(margins), MetricName.EVAL_MARGIN: sum(margins) / len(margins)}


def accuracy(margins: Sequence[float]) -> Metrics:
    """The share of margins above 0, ties counted half, with its interval."""
    hits = sum(1.0 if margin > TIE else 0.5 * (margin >= -TIE) for margin in margins)
    rows = float(len(margins))
    return {MetricName.EVAL_ROWS: rows, **metrics.share_of(MetricName.EVAL_ACCURACY, hits, len(margins))}


def refuse_truncation(setup: Setup) -> None:
    """Raise SpecError where the specification wants long rows cut: the end of a completion is what is judged."""
    if setup.too_long == TRUNCATE:
        raise SpecError(
            FailureCode.SPEC_INVALID,
            SpecField.TOO_LONG,
            f"data.too_long is {TRUNCATE}; completions that are compared cannot be cut, give refuse",
        )
