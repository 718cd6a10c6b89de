# SPDX-License-Identifier: Apache-2.0
"""Exact match and F1 of short answers, as SQuAD's evaluation counts them (Rajpurkar et al. 2016, arXiv:1606.05250).

Answers are compared in lower case, without punctuation, English articles and repeated white space. F1 is that of the
words that two answers share; of several references the best one counts.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence

from cloister_workers.messages import MetricName
from cloister_workers.trainer.metrics import ratio_interval, wilson_interval

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")


def exact_match(answer: str, reference: str) -> float:
    """1 where both are the same answer, else 0."""
    return float(_words(answer) == _words(reference))


def word_f1(answer: str, reference: str) -> float:
    """Harmonic mean of precision and recall of words; of an empty answer or reference whether both are."""
    given, true = _words(answer), _words(reference)
    if not given or not true:
        return float(given == true)
    shared = sum((Counter(given) & Counter(true)).values())
    return 2 * shared / (len(given) + len(true))


def answer_metrics(answers: Sequence[str], references: Sequence[Sequence[str]]) -> dict[MetricName, float]:
    """Exact match with Wilson's interval, mean F1 with that of a mean; each answer has one reference or more."""
    hits = _best(exact_match, answers, references)
    shares = _best(word_f1, answers, references)
    total = len(answers)
    low, high = wilson_interval(round(sum(hits)), total)
    below, above = ratio_interval(shares, [1] * total, [str(row).encode() for row in range(total)]) or (0.0, 1.0)
    return {
        MetricName.EVAL_EXACT_MATCH: sum(hits) / total,
        MetricName.EVAL_EXACT_MATCH_CI_LOW: low,
        MetricName.EVAL_EXACT_MATCH_CI_HIGH: high,
        MetricName.EVAL_F1: sum(shares) / total,
        MetricName.EVAL_F1_CI_LOW: max(0.0, below),
        MetricName.EVAL_F1_CI_HIGH: min(1.0, above),
    }


def _best(
    score: Callable[[str, str], float], answers: Sequence[str], references: Sequence[Sequence[str]]
) -> list[float]:
    return [max(score(answer, true) for true in known) for answer, known in zip(answers, references, strict=True)]


def _words(text: str) -> list[str]:
    return _ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split()
