# SPDX-License-Identifier: Apache-2.0
"""Deterministic split of the training rows into training, validation and evaluation parts.

The split depends on the seed, the row order and which rows repeat one another; not on what they say.
Rows with the same input (its digest; a label may differ) go to one part together, so nothing held out was
trained on.  A later job that replays the rows repeats the split of the job that trained on them (`replay.py`): so a
whole dataset is split before rows are left out of it, and in rows, whatever pieces they were cut into.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cloister_workers.trainer.example import Example
from cloister_workers.trainer.loop import Parts
from cloister_workers.trainer.order import split_order


@dataclass(frozen=True)
class Split:
    """Indices of rows, each part in row order."""

    training: tuple[int, ...]
    validation: tuple[int, ...]
    evaluation: tuple[int, ...]


def split_examples(examples: Sequence[Example], seed: int, validation: float, evaluation: float) -> Parts:
    """Split the examples of a dataset by its rows: `split_rows`, with all pieces of a row in one part, in order."""
    rows = [example.group for example in examples if example.piece == 0]
    split = split_rows(rows, seed, validation, evaluation)

    def taken(indices: Sequence[int]) -> tuple[Example, ...]:
        groups = {rows[index] for index in indices}
        return tuple(example for example in examples if example.group in groups)

    return Parts(taken(split.training), taken(split.validation), taken(split.evaluation))


def groups_of(*parts: Sequence[Example]) -> set[bytes]:
    """The inputs of examples."""
    return {example.group for part in parts for example in part}


def outside(examples: Sequence[Example], groups: set[bytes]) -> tuple[Example, ...]:
    """Those whose input is not among `groups`."""
    return tuple(example for example in examples if example.group not in groups)


def split_rows(groups: Sequence[bytes], seed: int, validation: float, evaluation: float) -> Split:
    """Split rows whose inputs have the digests `groups`.

    Groups are visited in `split_order(seed, number of groups)`, numbered by first appearance: evaluation
    takes groups until it has round(evaluation * rows) rows or more, then validation likewise, and training
    takes the rest.
    """
    members: dict[bytes, list[int]] = {}
    for index, digest in enumerate(groups):
        members.setdefault(digest, []).append(index)
    by_number = list(members.values())
    queue = [by_number[number] for number in split_order(seed, len(by_number))]
    held_out, position = _take(queue, 0, round(evaluation * len(groups)))
    checked, position = _take(queue, position, round(validation * len(groups)))
    rest = (index for group in queue[position:] for index in group)
    return Split(tuple(sorted(rest)), tuple(sorted(checked)), tuple(sorted(held_out)))


def _take(queue: Sequence[list[int]], position: int, wanted: int) -> tuple[list[int], int]:
    taken: list[int] = []
    while len(taken) < wanted and position < len(queue):
        taken += queue[position]
        position += 1
    return taken, position
