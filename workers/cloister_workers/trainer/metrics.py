# SPDX-License-Identifier: Apache-2.0
"""Figures of an evaluation, from plain numbers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
from scipy import special

from cloister_workers.messages import MetricName, Metrics
from cloister_workers.trainer.bootstrap import Interval, Sums, row_intervals

Z95 = 1.959963984540054  # the standard normal's 97.5 % point


def with_ends(name: MetricName, value: float, interval: Interval) -> dict[MetricName, float]:
    """A figure and the ends of its 95 % interval, whose names follow from its own."""
    return {
        name: value,
        **{MetricName(f"{name}_ci_{end}"): at for end, at in zip(("low", "high"), interval, strict=True)},
    }


def share_of(name: MetricName, hits: float, total: int) -> dict[MetricName, float]:
    """A share of one row or more with Wilson's interval."""
    return with_ends(name, hits / total, wilson_interval(hits, total))


def wilson_interval(hits: float, total: int) -> tuple[float, float]:
    """The 95 % score interval of a share (Wilson, JASA 22, 1927); (0, 1) for no rows."""
    if total == 0:
        return 0.0, 1.0
    share, z2 = hits / total, Z95 * Z95
    centre = share + z2 / (2 * total)
    spread = Z95 * math.sqrt(share * (1 - share) / total + z2 / (4 * total * total))
    scale = 1 + z2 / total
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """The 95 % interval of a mean by Student's t (Biometrika 6, 1908); of one value, that value."""
    mean, count = math.fsum(values) / len(values), len(values)
    if count < 2:
        return mean, mean
    error = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (count - 1) / count)
    spread = float(special.stdtrit(count - 1, 0.975)) * error
    return mean - spread, mean + spread


def ratio_interval(
    sums: Sequence[float], weights: Sequence[float], clusters: Sequence[bytes]
) -> tuple[float, float] | None:
    """The 95 % interval of sum(sums) / sum(weights), such as a mean token loss, where items of one cluster go together.

    The ratio estimator's linearised variance over C clusters (Cochran 1977, Sampling Techniques, 6.4), and Student's t
    with C - 1 degrees. None for fewer than two clusters.
    """
    totals: dict[bytes, list[float]] = {}
    for cluster, part, weight in zip(clusters, sums, weights, strict=True):
        entry = totals.setdefault(cluster, [0.0, 0.0])
        entry[0] += part
        entry[1] += weight
    count, whole = len(totals), math.fsum(weights)
    if count < 2:
        return None
    ratio = math.fsum(sums) / whole
    spread = math.fsum((part - ratio * weight) ** 2 for part, weight in totals.values())
    half = float(special.stdtrit(count - 1, 0.975)) * math.sqrt(count / (count - 1) * spread) / whole
    return ratio - half, ratio + half


def macro_f1(predicted: Sequence[int], true: Sequence[int]) -> float:
    """Mean F1 over every label that occurs as truth or as prediction; 0 for no rows."""
    labels = sorted(set(true) | set(predicted))
    scores = []
    for label in labels:
        both = sum(p == t == label for p, t in zip(predicted, true, strict=True))
        either = sum(p == label for p in predicted) + sum(t == label for t in true)
        scores.append(2 * both / either)
    return sum(scores) / len(scores) if scores else 0.0


def macro_f1_interval(predicted: Sequence[int], true: Sequence[int]) -> Interval:
    """The 95 % interval of `macro_f1` of one row or more, by drawing rows anew. A row is its pair of classes, so the
    work hangs on how many pairs there are, not on the rows.
    """
    pairs = Counter(zip(predicted, true, strict=True))
    place = {label: index for index, label in enumerate(sorted({*predicted, *true}))}
    table = np.zeros((len(pairs), 2, len(place)))  # of each label, both and either
    for line, (said, is_true) in zip(table, pairs, strict=True):
        line[0, place[said]] = said == is_true
        line[1, place[said]] += 1
        line[1, place[is_true]] += 1

    def score(sums: Sums) -> list[Sums]:
        both, either = np.split(sums, 2, axis=1)
        return [(2 * both / either.clip(min=1)).sum(1) / (either > 0).sum(1)]

    (found,) = row_intervals(table.reshape(len(pairs), -1), score, list(pairs.values()))
    return found


def perplexity(loss: float) -> float | None:
    """The exponential of a mean token loss; None where that is no finite number."""
    try:
        return math.exp(loss)
    except OverflowError:
        return None


def token_metrics(tokens: int, sums: Sequence[float], hits: Sequence[int]) -> Metrics:
    """Metrics of an evaluation with `tokens` targets: the summed loss and the right tokens of each example."""
    loss = sum(sums) / tokens
    scores = {
        MetricName.EVAL_LOSS: loss,
        MetricName.EVAL_ROWS: float(len(sums)),
        MetricName.EVAL_TOKEN_ACCURACY: sum(hits) / tokens,
    }
    wide = perplexity(loss)
    return scores if wide is None else {**scores, MetricName.EVAL_PERPLEXITY: wide}
