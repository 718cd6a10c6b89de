# SPDX-License-Identifier: Apache-2.0
"""Padded rows, and micro batches that are padded least."""

from __future__ import annotations

from array import array
from itertools import combinations, pairwise

import torch
from hypothesis import given
from hypothesis import strategies as st

from cloister_workers.trainer.example import Example
from cloister_workers.trainer.padding import PASS_TOKENS, least_padding, padded, padded_examples

CPU = torch.device("cpu")
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


def test_rows_are_filled_up_at_the_right_and_masked_there():
    """Ids and mask are [n, longest], whatever kind of sequence a row is; the mask marks the row's own tokens."""
    batch = padded([[3, 4, 5], array("i", [6])], 9, CPU)
    assert [[3, 4, 5], [6, 9, 9]] == batch["input_ids"].tolist()
    assert [[1, 1, 1], [1, 0, 0]] == batch["attention_mask"].tolist()
    assert [torch.int64, torch.int64] == [tensor.dtype for tensor in batch.values()]


def test_token_types_are_padded_where_one_example_has_them():
    """Examples without token types have type 0; where none has them, none are given."""
    plain = Example(tokens=array("i", [3]), group=b"", digest=b"")
    pair = Example(tokens=array("i", [3, 4]), group=b"", digest=b"", segments=b"\0\1")
    assert [[0, 0], [0, 1]] == padded_examples([plain, pair], 9, CPU)["token_type_ids"].tolist()
    assert {"input_ids", "attention_mask"} == padded_examples([plain], 9, CPU).keys()
