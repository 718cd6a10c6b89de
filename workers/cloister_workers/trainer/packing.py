# SPDX-License-Identifier: Apache-2.0
"""Packing of whole examples into rows without padding: best fit decreasing, an example is never cut."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from itertools import accumulate


def best_fit_decreasing(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Bins of indices with at most `capacity` tokens each.

    Longest first (equal lengths in their given order), each into the fullest bin that takes it, else a new
    one. Bins come back ordered by their smallest index, and so do the indices in a bin: packing keeps the
    data order. Raises ValueError where an example alone is longer than `capacity`.
    """
    bins: list[list[int]] = []
    room: list[tuple[int, int]] = []  # (tokens free, bin), sorted
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        length = lengths[index]
        if length > capacity:
            raise ValueError(f"example {index} has {length} tokens, a packed row takes {capacity}")
        place = bisect_left(room, (length, -1))
        if place == len(room):
            free, number = capacity, len(bins)
            bins.append([])
        else:
            free, number = room.pop(place)
        bins[number].append(index)
        insort(room, (free - length, number))
    return sorted(sorted(entry) for entry in bins)


def cumulative_lengths(lengths: Sequence[int]) -> list[int]:
    """cu_seqlens: where each sequence of a packed row starts, and the row's end; len(lengths)+1 numbers."""
    return [0, *accumulate(lengths)]


def position_ids(lengths: Sequence[int]) -> list[int]:
    """Positions that start again at 0 with each sequence of a packed row."""
    return [position for length in lengths for position in range(length)]
