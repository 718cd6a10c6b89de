# SPDX-License-Identifier: Apache-2.0
"""Micro batches of models that take padded rows: cut so that little padding is computed."""

from __future__ import annotations

from collections.abc import Sequence

PASS_TOKENS = 128
"""What another forward and backward pass costs beside its tokens, in tokens: launching kernels, building tensors."""


def least_padding(lengths: Sequence[int], most: int) -> list[list[int]]:
    """Groups of at most `most` indices, such that padding every group to its longest costs least.

    The cost of a group is its size times its greatest length, plus `PASS_TOKENS`. In order of length the best groups
    are neighbours, so this is a shortest path over cut points (Bellman's recursion, O(n * most)). Longest first, as
    then memory is asked for once; equal lengths in their given order.
    """
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    least, first = [0], [0]
    for end in range(1, len(order) + 1):
        # The first of a group is its longest.
        costs = [
            (least[start] + (end - start) * lengths[order[start]] + PASS_TOKENS, start)
            for start in range(max(0, end - most), end)
        ]
        cost, start = min(costs)
        least.append(cost)
        first.append(start)
    groups: list[list[int]] = []
    end = len(order)
    while end:
        groups.append(order[first[end] : end])
        end = first[end]
    return groups[::-1]
