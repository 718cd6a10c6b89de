# SPDX-License-Identifier: Apache-2.0
"""Answers to questions beside the true ones, as SQuAD counts (Rajpurkar et al. 2016, arXiv:1606.05250, 6.1)."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

from cloister_workers.messages import MetricName, Metrics
from cloister_workers.trainer import metrics
from cloister_workers.trainer.bootstrap import resampled_mean_interval

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalised(answer: str) -> str:
    """Lower case, without punctuation and articles, words one space apart."""
    return " ".join(_ARTICLES.sub(" ", answer.lower().translate(_PUNCTUATION)).split())


def exact_match(predicted: str, answers: Sequence[str]) -> bool:
    """Whether it is one of the answers once normalised; without answers (unanswerable), whether it is empty."""
    return normalised(predicted) in {normalised(answer) for answer in answers or ("",)}


def word_f1(predicted: str, answers: Sequence[str]) -> float:
    """Best F1 over the answers, of normalised words counted as often as they occur."""
    return max(_word_f1(normalised(predicted).split(), normalised(answer).split()) for answer in answers or ("",))


def _word_f1(said: list[str], true: list[str]) -> float:
    if not said or not true:
        return float(said == true)
    shared = (Counter(said) & Counter(true)).total()
    return 2 * shared / (len(said) + len(true))


def answer_metrics(predicted: Sequence[str], answers: Sequence[Sequence[str]]) -> Metrics:
    """Exact match (Wilson's interval) and F1 (bootstrap over rows), of one or more rows."""
    hits = sum(exact_match(said, true) for said, true in zip(predicted, answers, strict=True))
    scores = [word_f1(said, true) for said, true in zip(predicted, answers, strict=True)]
    return {
        **metrics.share_of(MetricName.EVAL_EXACT_MATCH, hits, len(scores)),
        **metrics.with_ends(MetricName.EVAL_F1, sum(scores) / len(scores), resampled_mean_interval(scores)),
    }
