# SPDX-License-Identifier: Apache-2.0
"""Micro batches that are padded least."""

from __future__ import annotations

from itertools import combinations, pairwise

from hypothesis import given
from hypothesis import strategies as st

from cloister_workers.trainer.padding import PASS_TOKENS, least_padding

LENGTHS = st.lists(st.integers(1, 600), max_size=8)


def cost(groups, lengths):
    return sum(len(group) * max(lengths[index] for index in group) + PASS_TOKENS for group in groups)


def test_like_lengths_stay_together():
    """A batch of like lengths is one pass; one long row among short ones goes alone."""
    assert [[0, 1, 2, 3]] == least_padding([20, 20, 20, 20], 16)
    assert [[2], [0, 1, 3]] == least_padding([20, 21, 500, 19], 16) or [[2], [1, 0, 3]] == least_padding(
        [20, 21, 500, 19], 16
    )
    assert [] == least_padding([], 4)


@given(LENGTHS, st.integers(1, 8))
def test_every_row_is_in_one_group_that_is_not_too_large(lengths, most):
    """Groups part the rows, and none has more than may go through at once."""
    groups = least_padding(lengths, most)
    assert list(range(len(lengths))) == sorted(index for group in groups for index in group)
    assert all(len(group) <= most for group in groups)


@given(LENGTHS, st.integers(1, 8))
def test_no_other_cut_of_the_sorted_rows_costs_less(lengths, most):
    """The cost is that of the best of all ways to cut the rows in order of length."""
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    ways = []
    for count in range(len(order)):
        for cuts in combinations(range(1, len(order)), count):
            edges = [0, *cuts, len(order)]
            groups = [order[a:b] for a, b in pairwise(edges)]
            if all(len(group) <= most for group in groups):
                ways.append(cost(groups, lengths))
    assert min(ways, default=0) == cost(least_padding(lengths, most), lengths)
