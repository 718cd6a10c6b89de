# SPDX-License-Identifier: Apache-2.0
"""How well a search does, by the places at which it finds what is right."""

from __future__ import annotations

from collections.abc import Sequence

from cloister_workers.messages import MetricName, Metrics
from cloister_workers.trainer.bootstrap import resampled_mean_interval
from cloister_workers.trainer.metrics import share_of, with_ends


def rank_metrics(ranks: Sequence[int], k: int) -> Metrics:
    """Recall at 1 and at k with Wilson's intervals, and mean reciprocal rank with that of a bootstrap over searches, of
    one search or more.

    `ranks`: of each search the place, from 1, of the first right result; 0 where none was found.
    """
    found: dict[MetricName, float] = {}
    for depth, name in ((1, MetricName.EVAL_RECALL_AT_1), (k, MetricName.EVAL_RECALL_AT_K)):
        found |= share_of(name, sum(1 <= rank <= depth for rank in ranks), len(ranks))
    reciprocal = [1 / rank if rank else 0.0 for rank in ranks]
    mean, interval = sum(reciprocal) / len(ranks), resampled_mean_interval(reciprocal)
    return {**found, **with_ends(MetricName.EVAL_MRR, mean, interval)}
