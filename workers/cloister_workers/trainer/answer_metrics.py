# SPDX-License-Identifier: Apache-2.0
"""How good generated answers are, against one or more right ones.

    answer  exact match and F1 of words, after SQuAD's normalisation: lower case, no punctuation, no articles
            (Rajpurkar et al. 2016, arXiv:1606.05250, section 6.1); the best over the right answers counts
    text    chrF (Popovic 2015) and BLEU (Papineni et al. 2002) by sacrebleu, ROUGE-L (Lin 2004), all 0 to 100

Intervals are 95 % percentile intervals of 1,000 bootstrap draws of rows, from a fixed seed. Of chrF the figure is the
corpus's and its interval that of the corpus statistic, recomputed in every draw.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from cloister_workers.messages import MetricName, Metrics

DRAWS = 1000
SEED = 20_210_603
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalised(text: str) -> str:
    """As SQuAD's evaluation compares answers."""
    bare = text.lower().translate(_NO_PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", bare).split())


def exact_match(answer: str, right: Sequence[str]) -> float:
    """1 where the answer is one of the right ones."""
    return float(any(normalised(answer) == normalised(one) for one in right))


def word_f1(answer: str, right: Sequence[str]) -> float:
    """F1 of the words that answer and right answer share, the best over the right ones; 1 where both say nothing."""
    return max(_f1(normalised(answer).split(), normalised(one).split()) for one in right)


def _f1(found: Sequence[str], wanted: Sequence[str]) -> float:
    if not found or not wanted:
        return float(found == wanted)
    shared = sum((Counter(found) & Counter(wanted)).values())
    return 2 * shared / (len(found) + len(wanted))


def rouge_l(answer: str, right: Sequence[str]) -> float:
    """F-measure of the longest common subsequence of words, 0 to 100, the best over the right answers."""
    return max(100 * _lcs_f(answer.lower().split(), one.lower().split()) for one in right)


def _lcs_f(found: Sequence[str], wanted: Sequence[str]) -> float:
    if not found or not wanted:
        return float(found == wanted)
    row = [0] * (len(wanted) + 1)
    for word in found:
        before = 0
        for place, other in enumerate(wanted, start=1):
            before, row[place] = row[place], before + 1 if word == other else max(row[place], row[place - 1])
    return 2 * row[-1] / (len(found) + len(wanted))


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Bootstrap interval of a mean over rows."""
    array = np.asarray(values, dtype=np.float64)
    return _limits(lambda rows: array[rows].mean(axis=1), len(array))


def answer_scores(answers: Sequence[str], right: Sequence[Sequence[str]]) -> Metrics:
    """Exact match and F1 of short answers."""
    pairs = list(zip(answers, right, strict=True))
    exact, shared = [exact_match(*pair) for pair in pairs], [word_f1(*pair) for pair in pairs]
    exact_low, exact_high = interval(exact)
    low, high = interval(shared)
    return {
        MetricName.EVAL_EXACT_MATCH: sum(exact) / len(exact),
        MetricName.EVAL_EXACT_MATCH_CI_LOW: exact_low,
        MetricName.EVAL_EXACT_MATCH_CI_HIGH: exact_high,
        MetricName.EVAL_F1: sum(shared) / len(shared),
        MetricName.EVAL_F1_CI_LOW: low,
        MetricName.EVAL_F1_CI_HIGH: high,
    }


def text_scores(answers: Sequence[str], right: Sequence[Sequence[str]]) -> Metrics:
    """chrF, BLEU and ROUGE-L of translations or summaries; of several right ones, the first is what BLEU compares."""
    firsts = [one[0] for one in right]
    chrf = CHRF()
    low, high = _chrf_limits(chrf, answers, firsts)
    return {
        MetricName.EVAL_CHRF: chrf.corpus_score(answers, [firsts]).score,
        MetricName.EVAL_CHRF_CI_LOW: low,
        MetricName.EVAL_CHRF_CI_HIGH: high,
        MetricName.EVAL_BLEU: BLEU(effective_order=False).corpus_score(answers, [firsts]).score,
        MetricName.EVAL_ROUGE_L: sum(map(rouge_l, answers, right)) / len(answers),
    }


def _chrf_limits(chrf: CHRF, answers: Sequence[str], right: Sequence[str]) -> tuple[float, float]:
    # n-gram counts of each sentence, from which the corpus score of any draw of sentences follows; the library's own
    # bootstrap draws by a seed of the process
    counts = np.asarray(chrf._extract_corpus_statistics(answers, [right]), dtype=np.float64)  # noqa: SLF001

    def score(rows: np.ndarray) -> np.ndarray:
        sums = [counts[draw].sum(axis=0).astype(int).tolist() for draw in rows]
        return np.asarray([chrf._compute_f_score(total) for total in sums])  # noqa: SLF001

    return _limits(score, len(answers))


def _limits(score: Callable[[np.ndarray], np.ndarray], count: int) -> tuple[float, float]:
    rows = np.random.default_rng(SEED).integers(0, count, (DRAWS, count))
    low, high = np.quantile(score(rows), (0.025, 0.975))
    return float(low), float(high)


NO_METRICS = "none"
SCORES: dict[str, Callable[[Sequence[str], Sequence[Sequence[str]]], Metrics]] = {
    "answer": answer_scores,
    "text": text_scores,
}
"""By the word that a specification says."""
