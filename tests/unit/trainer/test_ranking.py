# SPDX-License-Identifier: Apache-2.0
"""Figures of a search from the ranks of what is right."""

from __future__ import annotations

import pytest

from cloister_workers.messages import MetricName
from cloister_workers.trainer.metrics import wilson_interval
from cloister_workers.trainer.ranking import rank_metrics


def test_recall_and_reciprocal_rank_by_hand():
    """Of ranks 1, 2 and 20 one is first, two are among ten, and the reciprocals' mean is MRR."""
    found = rank_metrics([1, 2, 20], 10)
    assert 1 / 3 == found[MetricName.EVAL_RECALL_AT_1]
    assert 2 / 3 == found[MetricName.EVAL_RECALL_AT_K]
    assert pytest.approx((1 + 1 / 2 + 1 / 20) / 3) == found[MetricName.EVAL_MRR]
    interval = (found[MetricName.EVAL_RECALL_AT_K_CI_LOW], found[MetricName.EVAL_RECALL_AT_K_CI_HIGH])
    assert wilson_interval(2, 3) == interval


def test_what_is_not_found_counts_as_nothing():
    """A search that finds nothing right (rank 0) is a miss at every depth and adds nothing to MRR."""
    found = rank_metrics([0, 4], 4)
    assert 0.0 == found[MetricName.EVAL_RECALL_AT_1]
    assert 0.5 == found[MetricName.EVAL_RECALL_AT_K]
    assert 1 / 8 == found[MetricName.EVAL_MRR]
