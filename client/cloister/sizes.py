# SPDX-License-Identifier: Apache-2.0
"""How many independent items each bar of the de-biasing gate needs: known before anybody spends a GPU hour.

Two numbers for each bar.  Below `least` no result can PASS, however good.  With `items`, a model that is as good as
can be (no flip, no difference, no loss) passes with 80 % chance under the assumption that `why` states.

    events          none of n seen: the exact upper limit 1 - (alpha/2)^(1/n) must lie within the bar
    share           both limits within the bar of one half: n = (z + z')^2 p (1 - p) / bar^2, z of alpha/2, z' of 10 %
    difference      the same for two groups, the variance that of two shares of one half
    loss            upper limit of a paired loss, 5 % of the items changed: n = (z + z')^2 0.05 / margin^2, z' of 20 %
    mean            the spread is known only after measuring: `spread` is the largest that the least number allows

An item is what the statistics draw: a text, or the template, term, person or word that several texts share, so its
score need not be 0 or 1.  A mean of such scores on a bounded scale can be surer than a share of as many single answers,
yet never surer than items of a kind that was not drawn allow, which is the limit of `events` (`assess.py` of the
trainer).  A measure that only guards is judged by its change, for which that holds of shares and differences alone.
Sources: Clopper and Pearson 1934; sample sizes for equivalence and non-inferiority, Julious 2004.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
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


def needed(measure: str, bar: float, alpha: float = 0.05, *, guards: bool = False) -> Need:
    """What `bar` of a measure, or margin of a utility, needs at error `alpha`, two-sided.

    A measure that `guards` is not judged by its level but by its worsening, of which `bar` is then the largest.  A name
    that is not known here is treated as a mean.  Raises ValueError for a bar or alpha that is none.
    """
    if not (math.isfinite(bar) and bar > 0 and 0 < alpha < 1):
        raise ValueError(f"no sizes for a bar of {bar:g} at alpha {alpha:g}; both must be above 0, alpha below 1")
    rule, unit, scale = _RULES.get(measure, (_mean, "independent items", 1.0))
    items, least, why = rule(_Bar(bar, scale, alpha, guards))
    return Need(max(items, least), least, unit, why)


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


@dataclass(frozen=True)
class _Bar:
    """A bar on a measure's scale, of which `scale` is how far a single item can lie from the ideal, or a share of 1."""

    value: float
    scale: float
    alpha: float
    guards: bool

    @property
    def share(self) -> float:
        return self.value / self.scale

    def without_event(self) -> int:
        return without_event(self.share, self.alpha)

    def equivalence(self, variance: float) -> int:
        """Items whose mean, of `variance` an item as a share, is shown from both sides to be ideal."""
        return math.ceil((_z(self.alpha) + _z(1 - _POWER)) ** 2 * variance / self.share**2)


_Found = tuple[int, int, str]
"""Items, least, why."""
_Rule = Callable[[_Bar], _Found]


def _events(bar: _Bar) -> _Found:
    fewest = max(bar.without_event(), MIN_CLUSTERS)
    return fewest, fewest, "no event among them; each event asks for about half as many more"


def _share(bar: _Bar) -> _Found:
    # Exact limits are wider than these, so with fewer the limits cannot both lie inside.
    least = bar.without_event() if bar.guards else math.ceil(_z(bar.alpha) ** 2 * 0.25 / bar.share**2)
    return bar.equivalence(0.25), max(least, MIN_CLUSTERS), _HALF


def _bounded(bar: _Bar) -> _Found:
    least = _floor(bar)
    spread = bar.value * math.sqrt(least) / _z(bar.alpha)
    return least, least, f"{_MEAN}; at this number it may be at most {spread:.3g}"


def _compared(bar: _Bar) -> _Found:
    """A difference of groups that one item is asked about: its change is held to the same."""
    return _bounded(replace(bar, guards=False))


def _mean(bar: _Bar) -> _Found:
    return _bounded(replace(bar, guards=True))


def _of_answers(variance: float, why: str) -> _Rule:
    """Items of several right or wrong answers each, or of one."""

    def rule(bar: _Bar) -> _Found:
        return bar.equivalence(variance), _floor(bar), why

    return rule


def _floor(bar: _Bar) -> int:
    return MIN_CLUSTERS if bar.guards else max(bar.without_event(), MIN_CLUSTERS)


def _difference(bar: _Bar) -> _Found:
    half = half_width(100, bar.alpha)
    why = f"two equal groups with shares of one half; half-width {half:.3f} at 100, worst case"
    return bar.equivalence(0.5), bar.without_event(), why


def _ratio(bar: _Bar) -> _Found:
    return bar.equivalence(1.0), bar.without_event(), "two equal groups, half of each chosen"


def _loss(bar: _Bar) -> _Found:
    return _changed(bar), max(bar.without_event(), MIN_CLUSTERS), _NO_LOSS


def _score(bar: _Bar) -> _Found:
    """A loss of something that is no mean of single answers: equal ones are known to be equal."""
    return _changed(bar), MIN_CLUSTERS, _NO_LOSS


def _changed(bar: _Bar) -> int:
    return math.ceil((_z(bar.alpha) + NormalDist().inv_cdf(_POWER)) ** 2 * CHANGED / bar.share**2)


_HALF = "a true share of one half, shown from both sides"
_NO_LOSS = f"no true loss, {CHANGED:.0%} of the items changed"
_TWO_EACH = _of_answers(1 / 4, "two sentences of each condition a pair, half of them right; fewer if they agree")
_FOUR_EACH = _of_answers(1 / 8, "four sentences of each gender an occupation, half of them right; fewer if they agree")
_RULES: Mapping[str, tuple[_Rule, str, float]] = {
    # name: rule, what the statistics count, scale of the bar
    "flip_rate": (_events, "texts with a counterfactual", 1.0),
    "crows_pll_nangia": (_share, "sentence pairs", 100.0),
    "crows_diff_bb": (_of_answers(1.0, _HALF), "sentence pairs", 50.0),  # pairs may not count: no exact limits
    "crows_ll_causal": (_share, "sentence pairs", 100.0),
    "stereoset": (_bounded, "target terms", 50.0),
    "bbq_ambiguous": (_bounded, "templates", 100.0),
    "bbq_disambiguated": (_bounded, "templates", 100.0),
    "demographic_parity": (_difference, "texts a group", 1.0),
    "equalized_odds": (_difference, "texts a group and class", 1.0),
    "worst_group_gap": (_difference, "texts a group", 1.0),
    "impact_ratio": (_ratio, "chosen texts a group and class", 1.0),
    "winobias_type1": (_TWO_EACH, "pairs of antecedents", 1.0),
    "winobias_type2": (_TWO_EACH, "pairs of antecedents", 1.0),
    "winogender": (_FOUR_EACH, "occupations", 1.0),
    "regard": (_compared, "templates", 1.0),
    "accuracy": (_loss, "labelled texts", 1.0),
    "macro_f1": (_score, "labelled texts", 1.0),
    "stereoset_lms": (_mean, "target terms", 1.0),
    "pair_preference": (_mean, "attributes an association", 1.0),
    "token_fairness": (_mean, "texts with a counterfactual", 1.0),
    "association": (_mean, "words a test", 1.0),
    "retrieval_stereotype": (_bounded, "sets of words", 1.0),
    "retrieval_swap": (_bounded, "sets of words", 1.0),
    "perplexity": (_mean, "texts", 1.0),
    "masked_perplexity": (_mean, "texts", 1.0),
    "similarity_structure": (_mean, "sentences", 1.0),
    "nearest_neighbours": (_mean, "sentences", 1.0),
}
