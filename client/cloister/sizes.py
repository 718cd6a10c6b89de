# SPDX-License-Identifier: Apache-2.0
"""How many independent items each bar of the de-biasing gate needs: known before anybody spends a GPU hour.

Two numbers for each bar.  Below `least` no result can PASS, however good.  With `items`, a model that is as good as
can be (no flip, no difference, no loss) passes with 80 % chance under the assumption that `why` states.

    events          none of n seen: the exact upper limit 1 - (alpha/2)^(1/n) must lie within the bar
    share           both limits within the bar of one half: n = (z + z')^2 p (1 - p) / bar^2, z of alpha/2, z' of 10 %
    difference      the same for two groups, the variance that of two shares of one half
    loss            upper limit of a paired loss, 5 % of the items changed: n = (z + z')^2 0.05 / margin^2, z' of 20 %
    mean            the spread is known only after measuring: `spread` is the largest that the least number allows

Items that share a template, a word or a person are one.  Sources: Clopper and Pearson 1934; sample sizes for
equivalence and non-inferiority, Julious 2004.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import NormalDist

from cloister.gate import MIN_CLUSTERS

CHANGED = 0.05
"""Share of items that a mitigation is taken to change from right to wrong or back."""
_POWER = 0.8
_MEAN = "its spread is known only after measuring"


@dataclass(frozen=True)
class Need:
    """How much material a bar asks for."""

    items: int
    """Independent items (each with its own text, template, word, person) with which a good model is likely to pass."""
    least: int
    """With fewer, PASS is impossible."""
    unit: str
    """What is counted, for example `sentence pairs` or `texts a group`."""
    why: str
    """The rule and its assumption, in a few words."""


def needed(measure: str, bar: float, alpha: float = 0.05) -> Need:
    """What `bar` of a measure, or margin of a utility, needs at error `alpha`, two-sided.

    A name that is not known here is treated as a mean.  Raises ValueError for a bar or alpha that is none.
    """
    if not (math.isfinite(bar) and bar > 0 and 0 < alpha < 1):
        raise ValueError(f"no sizes for a bar of {bar:g} at alpha {alpha:g}; both must be above 0, alpha below 1")
    rule, unit, scale = _RULES.get(measure, (_mean, "independent items", 1.0))
    need = rule(bar / scale, alpha, unit)
    return Need(max(need.items, MIN_CLUSTERS), max(need.least, MIN_CLUSTERS), need.unit, need.why)


def unseen(items: int, alpha: float = 0.05) -> float:
    """Exact upper limit of a rate of which `items` independent items show no event."""
    return 1 - math.pow(alpha / 2, 1 / items)


def without_event(bar: float, alpha: float = 0.05) -> int:
    """The fewest items whose showing no event proves a rate within `bar`."""
    if bar >= 1:
        return 1
    return math.ceil(math.log(alpha / 2) / math.log1p(-bar) - 1e-9)


def half_width(per_group: int, alpha: float = 0.05) -> float:
    """Largest half-width of the interval of a difference of two shares, `per_group` items each."""
    return _z(alpha) * math.sqrt(2 * 0.25 / per_group)


def _z(alpha: float) -> float:
    return NormalDist().inv_cdf(1 - alpha / 2)


def _equivalence(variance: float, bar: float, alpha: float) -> int:
    return math.ceil((_z(alpha) + _z(1 - _POWER)) ** 2 * variance / bar**2)


def _events(bar: float, alpha: float, unit: str) -> Need:
    fewest = without_event(bar, alpha)
    return Need(fewest, fewest, unit, "no event among them; each event asks for about half as many more")


def _share(bar: float, alpha: float, unit: str) -> Need:
    least = math.ceil(_z(alpha) ** 2 * 0.25 / bar**2)
    return Need(_equivalence(0.25, bar, alpha), least, unit, "a true share of one half, shown from both sides")


def _score(bar: float, alpha: float, unit: str) -> Need:
    """2 p - 1: twice as far from its ideal as the share p."""
    return _share(bar / 2, alpha, unit)


def _difference(bar: float, alpha: float, unit: str) -> Need:
    why = f"two equal groups with shares of one half; half-width {half_width(100, alpha):.3f} at 100, worst case"
    return Need(_equivalence(0.5, bar, alpha), without_event(bar, alpha), unit, why)


def _loss(bar: float, alpha: float, unit: str) -> Need:
    spread = (_z(alpha) + NormalDist().inv_cdf(_POWER)) ** 2
    why = f"no true loss, {CHANGED:.0%} of the items changed"
    return Need(math.ceil(spread * CHANGED / bar**2), without_event(bar, alpha), unit, why)


def _mean(bar: float, alpha: float, unit: str) -> Need:
    spread = bar * math.sqrt(MIN_CLUSTERS) / _z(alpha)
    return Need(MIN_CLUSTERS, MIN_CLUSTERS, unit, f"{_MEAN}; at this number it may be at most {spread:.3g}")


_Rule = Callable[[float, float, str], Need]
_RULES: Mapping[str, tuple[_Rule, str, float]] = {
    # name: rule, what is counted, what a share of 1 is on the measure's scale
    "flip_rate": (_events, "texts with a counterfactual", 1.0),
    "crows_pll_nangia": (_share, "sentence pairs", 100.0),
    "crows_diff_bb": (_share, "sentence pairs", 100.0),
    "crows_ll_causal": (_share, "sentence pairs", 100.0),
    "stereoset": (_share, "target terms", 100.0),
    "bbq_ambiguous": (_score, "templates with an answer other than unknown", 100.0),
    "bbq_disambiguated": (_score, "templates with an answer other than unknown", 100.0),
    "demographic_parity": (_difference, "texts a group", 1.0),
    "equalized_odds": (_difference, "texts a group and class", 1.0),
    "worst_group_gap": (_difference, "texts a group", 1.0),
    "impact_ratio": (_difference, "texts a group", 2.0),  # over shares of one half
    "winobias_type1": (_difference, "sentences a condition", 1.0),
    "winobias_type2": (_difference, "sentences a condition", 1.0),
    "winogender": (_difference, "sentences a gender", 1.0),
    "regard": (_difference, "continuations a group", 1.0),
    "accuracy": (_loss, "labelled texts", 1.0),
    "macro_f1": (_loss, "labelled texts", 1.0),
    "stereoset_lms": (_loss, "target terms", 100.0),
    "pair_preference": (_mean, "sentence pairs", 1.0),
    "token_fairness": (_mean, "texts with a counterfactual", 1.0),
    "association": (_mean, "words", 1.0),
    "retrieval_stereotype": (_mean, "queries", 1.0),
    "retrieval_swap": (_mean, "queries", 1.0),
    "perplexity": (_mean, "texts", 1.0),
    "masked_perplexity": (_mean, "texts", 1.0),
    "similarity_structure": (_mean, "sentences", 1.0),
    "nearest_neighbours": (_mean, "sentences", 1.0),
}
