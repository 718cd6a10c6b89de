# SPDX-License-Identifier: Apache-2.0
"""How well a language model still predicts plain text.

    perplexity          causal. exp(sum of negative log-likelihoods / sum of tokens) over all texts; a first token is
                        given the start of a text
    masked_perplexity   masked. The same with log P(token | text with that token alone masked): pseudo-perplexity,
                        Salazar et al. 2020, arXiv:1910.14659. Of a long text 64 tokens are asked, evenly spread.

1 is best, the unit is a ratio. The loss is perplexity after / before - 1 on the same texts: .02 is two per cent worse.
Texts are the rows of kind text of the test part; where it has none, the neutral sentences of its lexicons, which
say far less about the user's domain. Long texts are cut as the subject cuts them. Intervals cluster on the text.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cloister_workers.trainer.debias.kinds import FloatArray, ModelKind, Scale
from cloister_workers.trainer.debias.labelled import ratio
from cloister_workers.trainer.debias.material import Part
from cloister_workers.trainer.debias.measure import Items, Missing, Utility
from cloister_workers.trainer.debias.shapes import Text
from cloister_workers.trainer.debias.subjects import Continues, FillsMasks
from cloister_workers.trainer.debias.subjects.likelihood import text_log_probs

_MOST_MASKED = 64


class _Perplexity:
    """What both share. Scores [n, 2]: negative log-likelihood in nats, and tokens."""

    scale = Scale.RATIO
    higher_is_better = False
    binary = False

    def items(self, part: Part) -> Items | Missing:
        rows = [row.text for row in part.rows.of(Text)]
        neutral = [text for lexicon in part.lexicons.values() for text in lexicon.neutral]
        texts = tuple(dict.fromkeys(rows or neutral))
        return Items(texts, texts) if texts else Missing("no rows of kind text and no neutral sentences")

    def level(self, items: Items, scores: FloatArray, weights: FloatArray) -> FloatArray:
        return np.exp(ratio(weights @ scores[:, 0], weights @ scores[:, 1]))

    def loss(self, items: Items, before: FloatArray, after: FloatArray, weights: FloatArray) -> FloatArray:
        return self.level(items, after, weights) / self.level(items, before, weights) - 1


class Perplexity(_Perplexity):
    """Of a causal model."""

    name = "perplexity"
    title = "Perplexity"
    kinds = frozenset({ModelKind.CAUSAL})
    source = "Jelinek et al. 1977; exp of the mean negative log-likelihood of a token"

    def score(self, subject: Continues, items: Items) -> FloatArray:
        return _summed(text_log_probs(subject, items.content))


class MaskedPerplexity(_Perplexity):
    """Of a masked model."""

    name = "masked_perplexity"
    title = "Pseudo-perplexity"
    kinds = frozenset({ModelKind.MASKED})
    source = "Salazar et al. 2020, arXiv:1910.14659"

    def score(self, subject: FillsMasks, items: Items) -> FloatArray:
        return _summed(text_log_probs(subject, items.content, _MOST_MASKED))


def _summed(found: Sequence[FloatArray]) -> FloatArray:
    return np.array([[-float(values.sum()), float(len(values))] for values in found]).reshape(-1, 2)


UTILITIES: tuple[Utility, ...] = (Perplexity(), MaskedPerplexity())
