# SPDX-License-Identifier: Apache-2.0
"""How good generated texts are, against a right one each: chrF (Popovic 2015) and BLEU (Papineni et al. 2002) by
sacrebleu, ROUGE-L (Lin 2004); all from 0 to 100.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby

import numpy as np
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from cloister_workers.messages import MetricName, Metrics
from cloister_workers.trainer.answers import answer_metrics
from cloister_workers.trainer.bootstrap import Interval, Sums, resampled_mean_interval, row_interval
from cloister_workers.trainer.generation import Sampler
from cloister_workers.trainer.metrics import with_ends


def rouge_l(text: str, right: str) -> float:
    """F-measure of the longest common subsequence of words in lower case, 0 to 100."""
    found, wanted = text.lower().split(), right.lower().split()
    if not found or not wanted:
        return 100.0 * (found == wanted)
    row = [0] * (len(wanted) + 1)
    for word in found:
        before = 0
        for place, other in enumerate(wanted, start=1):
            before, row[place] = row[place], before + 1 if word == other else max(row[place], row[place - 1])
    return 200.0 * row[-1] / (len(found) + len(wanted))


def text_metrics(texts: Sequence[str], right: Sequence[Sequence[str]]) -> Metrics:
    """Of one or more texts; of several right ones the first is compared with. Intervals are of the corpus figure,
    of ROUGE-L of the mean, rows drawn anew.
    """
    firsts = [known[0] for known in right]
    rouge = [rouge_l(text, first) for text, first in zip(texts, firsts, strict=True)]
    chrf, bleu = CHRF(), BLEU()
    return {
        **with_ends(MetricName.EVAL_CHRF, chrf.corpus_score(texts, [firsts]).score, _corpus(chrf, texts, firsts)),
        **with_ends(MetricName.EVAL_BLEU, bleu.corpus_score(texts, [firsts]).score, _corpus(bleu, texts, firsts)),
        **with_ends(MetricName.EVAL_ROUGE_L, sum(rouge) / len(rouge), resampled_mean_interval(rouge)),
    }


def _corpus(metric: BLEU | CHRF, texts: Sequence[str], right: Sequence[str]) -> Interval:
    """The interval of a corpus figure. The counts of each row are those from which the figure of any draw of rows
    follows; the library's own bootstrap draws by a seed of the process.
    """

    def score(sums: Sums) -> Sums:
        lines = sums.astype(int).tolist()
        return np.asarray([metric._compute_score_from_stats(line).score for line in lines])  # noqa: SLF001

    return row_interval(metric._extract_corpus_statistics(texts, [right]), score)  # noqa: SLF001


UNWRITABLE = "\ufffd"
NO_METRICS, ANSWER = "none", "answer"
SCORES: dict[str, Callable[[Sequence[str], Sequence[Sequence[str]]], Metrics]] = {
    ANSWER: answer_metrics,
    "text": text_metrics,
}
"""What generated answers are measured by, by the word of a specification."""


def answer_scores(
    kind: str,
    sampler: Sampler,
    prompts: Sequence[Sequence[int]],
    right: Sequence[Sequence[int]],
    max_new_tokens: int,
) -> Metrics:
    """What a model's answers to prompts are worth beside the right ones, all as tokens; `kind` is one of `SCORES`."""
    answers = sampler.continued(prompts, max_new_tokens)
    return SCORES[kind](answers, [[right_text(sampler, tokens)] for tokens in right])


def right_text(sampler: Sampler, tokens: Sequence[int]) -> str:
    """A right answer's tokens as a text, with UNWRITABLE where some are unknown.

    Left out like other special tokens, a word that the tokenizer does not have would be right when nothing is said.
    """
    tokenizer = sampler.tokenizer
    unknown = tokenizer.unk_token_id
    # GPT-2's names one token for the unknown and the end; it can write everything.
    if unknown is None or unknown == tokenizer.eos_token_id or unknown not in tokens:
        return sampler.text(tokens)
    runs = groupby(tokens, lambda token: token == unknown)
    return " ".join(UNWRITABLE if missing else sampler.text(list(run)) for missing, run in runs).strip()
