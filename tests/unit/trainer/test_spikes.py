# SPDX-License-Identifier: Apache-2.0
"""Steps that stand out, and the rows that made them so."""

from __future__ import annotations

import math

from cloister_workers.trainer.spikes import LEAST, MAX_ROWS, WINDOW, RowLoss, Spikes, odd_rows


def test_nothing_stands_out_before_there_is_a_curve():
    """Among the first steps even a large loss is not called odd."""
    spikes = Spikes()
    assert [False] * LEAST == [spikes.stands_out(float(10**n % 977)) for n in range(LEAST)]


def test_a_spike_stands_out_and_is_forgotten():
    """A loss far above the last ones stands out, again the next time, and a falling curve never does."""
    spikes = Spikes()
    assert not any(spikes.stands_out(2.0 - 0.01 * step + 0.02 * (step % 3)) for step in range(60))
    assert spikes.stands_out(4.0)
    assert spikes.stands_out(4.0)
    assert not spikes.stands_out(1.5)


def test_a_new_level_soon_is_the_usual_one():
    """A loss that stays higher stands out for half a window at most, and then no longer."""
    spikes = Spikes()
    assert not any(spikes.stands_out(1.0 + 0.02 * (step % 2)) for step in range(WINDOW))
    odd = [spikes.stands_out(1.6 + 0.02 * (step % 2)) for step in range(4 * WINDOW)]
    assert odd[0]
    assert not any(odd[WINDOW:])


def test_a_flat_curve_tolerates_a_ripple():
    """Where losses hardly differ, half the median more is needed."""
    spikes = Spikes()
    for _ in range(30):
        spikes.stands_out(1.0)
    assert not spikes.stands_out(1.4)
    assert spikes.stands_out(1.6)


def test_no_number_always_stands_out():
    """NaN and infinity need no curve before them."""
    assert Spikes().stands_out(math.nan)
    assert Spikes().stands_out(math.inf)


def test_odd_rows_are_the_worst_first():
    """Rows of more than twice the median, those without a number before all others."""
    losses = [RowLoss(1, 1.0), RowLoss(2, 9.0), RowLoss(3, 1.2), RowLoss(4, math.nan), RowLoss(5, 0.8), RowLoss(6, 3.0)]
    assert [4, 2, 6] == [entry.row for entry in odd_rows(losses)]


def test_odd_rows_are_few():
    """However many rows are odd, no more than the protocol takes are named."""
    assert MAX_ROWS == len(odd_rows([RowLoss(number, math.inf) for number in range(1, 30)]))
    assert () == odd_rows([])
