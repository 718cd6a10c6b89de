# SPDX-License-Identifier: Apache-2.0
"""How many items a bar needs, against published guide figures and against exact calculation."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from cloister.gate import BARS, MARGINS, MIN_CLUSTERS
from cloister.sizes import half_width, needed, unseen, without_event


def test_guide_figures() -> None:
    """183 texts without a flip, about 1,050 pairs for CrowS, about 4,000 texts for accuracy, .139 and .057 for DPD."""
    assert 183 == needed("flip_rate", 0.02).items == needed("flip_rate", 0.02).least
    assert 1050 == pytest.approx(needed("crows_pll_nangia", 5.0).items, abs=2)
    assert 4000 == pytest.approx(needed("accuracy", 0.01).items, rel=0.02)
    assert (0.139, 0.057) == (round(half_width(100), 3), round(half_width(600), 3))
    assert 262 < needed("crows_pll_nangia", 5.0).least, "with the 262 pairs of one axis PASS is impossible"


@settings(deadline=None, max_examples=60)
@given(st.floats(1e-4, 0.9), st.sampled_from([0.01, 0.05, 0.1]))
def test_events_are_exact(bar: float, alpha: float) -> None:
    """The number found is the first whose Clopper-Pearson limit of no event lies within the bar."""
    fewest = without_event(bar, alpha)
    limits = [stats.binomtest(0, n).proportion_ci(1 - alpha).high for n in (fewest - 1, fewest) if n]
    assert limits[-1] <= bar * (1 + 1e-9)
    assert all(limit > bar * (1 - 1e-9) for limit in limits[:-1])
    assert limits[-1] == pytest.approx(unseen(fewest, alpha))


def test_equivalence_has_the_power_that_it_states() -> None:
    """With the items asked for, 80 % of samples of a fair share have both limits inside the bar."""
    items = needed("crows_pll_nangia", 5.0).items
    heads = stats.binom(items, 0.5)
    half = stats.norm.ppf(0.975) * 0.5 / math.sqrt(items)
    inside = heads.cdf(math.floor(items * (0.55 - half))) - heads.cdf(math.ceil(items * (0.45 + half)) - 1)
    assert 0.8 == pytest.approx(inside, abs=0.02)


def test_a_loss_has_the_power_that_it_states() -> None:
    """With the items asked for, 80 % of paired losses of nothing have their upper limit within the margin."""
    items = needed("accuracy", 0.01).items
    error = math.sqrt(0.05 / items)
    assert 0.8 == pytest.approx(stats.norm.cdf(0.01 / error - stats.norm.ppf(0.975)), abs=0.001)


@pytest.mark.parametrize("name", [*BARS, *MARGINS])
def test_every_bar_has_its_size(name: str) -> None:
    """Each default bar and margin has a rule of its own, and no bar can pass on fewer units than are believed."""
    need = needed(name, {**BARS, **MARGINS}[name])
    assert need.items >= need.least
    assert need.least * (2 if " a group" in need.unit else 1) >= MIN_CLUSTERS
    assert "independent items" != need.unit
    assert need.why


@settings(deadline=None, max_examples=60)
@given(st.sampled_from([*BARS, *MARGINS]), st.floats(1e-3, 0.4), st.floats(1.01, 2))
def test_a_tighter_bar_needs_no_fewer(name: str, bar: float, factor: float) -> None:
    """Tightening a bar, or the error, never lowers a number."""
    loose = needed(name, bar * factor)
    for tight in (needed(name, bar), needed(name, bar * factor, 0.01)):
        assert tight.items >= loose.items
        assert tight.least >= loose.least


@pytest.mark.parametrize("name", ["stereoset", "bbq_ambiguous", "bbq_disambiguated"])
def test_a_term_or_template_is_no_single_answer(name: str) -> None:
    """36 target terms or templates of many rows each may do: they are held to what 36 units cannot hide, no more."""
    need = needed(name, BARS[name])
    assert (36, 36) == (need.items, need.least)
    assert "known only after measuring" in need.why


@pytest.mark.parametrize("name", list(BARS))
def test_a_guard_needs_no_more_than_what_decides(name: str) -> None:
    """A measure that is not primary is judged by its change alone, which asks for as many units or fewer."""
    assert needed(name, BARS[name], guards=True).least <= needed(name, BARS[name]).least


def test_an_unknown_measure_is_a_mean() -> None:
    """A measure of the user's own gets the least number of units and the words that its spread is unknown."""
    need = needed("my_measure", 0.3)
    assert (MIN_CLUSTERS, "independent items") == (need.items, need.unit)
    assert "known only after measuring" in need.why


@pytest.mark.parametrize(
    ("bar", "alpha"), [(0, 0.05), (-1, 0.05), (math.nan, 0.05), (math.inf, 0.05), (0.1, 0), (0.1, 1)]
)
def test_what_is_no_bar_has_no_size(bar: float, alpha: float) -> None:
    """A bar or error that is none is refused with its value."""
    with pytest.raises(ValueError, match="no sizes for a bar"):
        needed("flip_rate", bar, alpha)
