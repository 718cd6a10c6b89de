# SPDX-License-Identifier: Apache-2.0
"""The order of the data, from the seed and the epoch alone.

An outside script reproduces a job's batches with `batches(data_order(seed, epoch, count), batch_size)`.
No random generator is involved, so no version of one can change an order.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence

_ORDER = b"cloister/data-order/v1"
_SPLIT = b"cloister/split/v1"


def _shuffled(label: bytes, seed: int, round_number: int, count: int) -> list[int]:
    prefix = hashlib.sha256(label + struct.pack(">QQ", seed, round_number))

    def rank(index: int) -> bytes:
        state = prefix.copy()
        state.update(struct.pack(">Q", index))
        return state.digest()

    return sorted(range(count), key=rank)


def data_order(seed: int, epoch: int, count: int) -> list[int]:
    """The order in which epoch `epoch` (from 0) visits examples 0..count-1.

    Index i is ranked by SHA-256("cloister/data-order/v1" || u64be seed || u64be epoch || u64be i); ranks
    ascend.
    """
    return _shuffled(_ORDER, seed, epoch, count)


def split_order(seed: int, count: int) -> list[int]:
    """The order in which `split` hands out groups of rows; as `data_order`, with the label
    "cloister/split/v1".
    """
    return _shuffled(_SPLIT, seed, 0, count)


def batches(order: Sequence[int], batch_size: int) -> list[list[int]]:
    """Consecutive runs of `batch_size`; the last one of an epoch may be shorter."""
    return [list(order[start : start + batch_size]) for start in range(0, len(order), batch_size)]


def steps_per_epoch(count: int, batch_size: int) -> int:
    """Optimiser steps in one epoch: ceil(count / batch_size)."""
    return -(-count // batch_size)


def milestones(max_steps: int, wanted: int) -> frozenset[int]:
    """Steps strictly inside 1..max_steps-1 that cut training into wanted+1 parts as equal as can be."""
    points = (round(max_steps * part / (wanted + 1)) for part in range(1, wanted + 1))
    return frozenset(point for point in points if 0 < point < max_steps)


class Visits:
    """Which of `count` examples each step takes; an epoch's order is worked out once, when it begins."""

    def __init__(self, seed: int, count: int, batch_size: int) -> None:
        self._seed, self._count, self._batch_size = seed, count, batch_size
        self._epoch, self._order = -1, list[list[int]]()

    def step(self, step: int) -> list[int]:
        """Indices of the examples of step `step`, from 0."""
        epoch, place = divmod(step, steps_per_epoch(self._count, self._batch_size))
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = batches(data_order(self._seed, epoch, self._count), self._batch_size)
        return self._order[place]
