# SPDX-License-Identifier: Apache-2.0
"""How well a search does, by the places at which it finds what is right."""

from __future__ import annotations

from collections.abc import Sequence

from cloister_workers.messages import MetricName, Metrics
from cloister_workers.trainer.bootstrap import resampled_mean_interval
from cloister_workers.trainer.metrics import wilson_interval, with_ends

_AT_1 = (MetricName.EVAL_RECALL_AT_1, MetricName.EVAL_RECALL_AT_1_CI_LOW, MetricName.EVAL_RECALL_AT_1_CI_HIGH)
_AT_K = (MetricName.EVAL_RECALL_AT_K, MetricName.EVAL_RECALL_AT_K_CI_LOW, MetricName.EVAL_RECALL_AT_K_CI_HIGH)


def rank_metrics(ranks: Sequence[int], k: int) -> Metrics:
    """Recall at 1 and at k with Wilson's intervals, and mean reciprocal rank with that of a bootstrap over searches, of
    one search or more.

    `ranks`: of each search the place, from 1, of the first right result; 0 where none was found.
    """
    found: dict[MetricName, float] = {}
    for depth, names in ((1, _AT_1), (k, _AT_K)):
        hits = sum(1 <= rank <= depth for rank in ranks)
        found |= dict(zip(names, (hits / len(ranks), *wilson_interval(hits, len(ranks))), strict=True))
    reciprocal = [1 / rank if rank else 0.0 for rank in ranks]
    mean, interval = sum(reciprocal) / len(ranks), resampled_mean_interval(reciprocal)
    return {**found, **with_ends(MetricName.EVAL_MRR, mean, interval)}
