# SPDX-License-Identifier: Apache-2.0
"""How well a search does, by the places at which it finds what is right."""

from __future__ import annotations

from collections.abc import Sequence

from cloister_workers.messages import MetricName, Metrics
from cloister_workers.trainer.metrics import wilson_interval

_AT_1 = (MetricName.EVAL_RECALL_AT_1, MetricName.EVAL_RECALL_AT_1_CI_LOW, MetricName.EVAL_RECALL_AT_1_CI_HIGH)
_AT_K = (MetricName.EVAL_RECALL_AT_K, MetricName.EVAL_RECALL_AT_K_CI_LOW, MetricName.EVAL_RECALL_AT_K_CI_HIGH)


def rank_metrics(ranks: Sequence[int], k: int) -> Metrics:
    """Recall at 1 and at k with Wilson's intervals, and mean reciprocal rank, of one search or more.

    `ranks`: of each search the place, from 1, of the first right result; 0 where none was found.
    """
    found: dict[MetricName, float] = {}
    for depth, names in ((1, _AT_1), (k, _AT_K)):
        hits = sum(1 <= rank <= depth for rank in ranks)
        found |= dict(zip(names, (hits / len(ranks), *wilson_interval(hits, len(ranks))), strict=True))
    return {**found, MetricName.EVAL_MRR: sum(1 / rank for rank in ranks if rank) / len(ranks)}
