# SPDX-License-Identifier: Apache-2.0
"""Holm's adjustment against the closed test that it is a shortcut of."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloister_workers.trainer.debias.statistics.holm import holm

P_VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=6)


def closed(p_values: list[float]) -> list[float]:
    """By definition: the largest Bonferroni p of all sets of hypotheses that the one is in."""
    numbers = range(len(p_values))
    sets = [chosen for size in range(1, len(p_values) + 1) for chosen in combinations(numbers, size)]
    whole = {chosen: min(1.0, len(chosen) * min(p_values[k] for k in chosen)) for chosen in sets}
    return [max(p for chosen, p in whole.items() if k in chosen) for k in numbers]


@settings(deadline=None, max_examples=100)
@given(P_VALUES)
def test_holm_is_the_closed_bonferroni_test(p_values: list[float]) -> None:
    """Adjusted values equal those of testing every intersection."""
    assert closed(p_values) == pytest.approx(holm(p_values))


def test_by_hand() -> None:
    """Four values, worked on paper: .01*4, then .02*3, .03*2 held up to it, .4."""
    assert (0.06, 0.04, 0.4, 0.06) == pytest.approx(holm([0.03, 0.01, 0.4, 0.02]))


def test_nothing_tested_is_no_evidence() -> None:
    """NaN counts as 1, and no hypotheses give no values."""
    assert (1.0, 0.02) == pytest.approx(holm([float("nan"), 0.01]))
    assert () == holm([])
