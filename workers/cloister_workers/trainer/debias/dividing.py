# SPDX-License-Identifier: Apache-2.0
"""Deals things that hang together to the three parts, so that every list keeps its shares."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from enum import IntEnum


class Role(IntEnum):
    """A part of a job, from the freest to the strictest."""

    FIT = 0
    VALIDATION = 1
    TEST = 2


class Ties:
    """Which positions hang together: those that share a key, directly or over others (disjoint sets)."""

    def __init__(self, keys: Iterable[Iterable[Hashable]]) -> None:
        self._parent: list[int] = []
        owner: dict[Hashable, int] = {}
        for at, own in enumerate(keys):
            self._parent.append(at)
            for key in own:
                self._join(owner.setdefault(key, at), at)

    def groups(self) -> list[list[int]]:
        """Positions that hang together, each group in order, groups in the order of their first."""
        found: dict[int, list[int]] = {}
        for at in range(len(self._parent)):
            found.setdefault(self._root(at), []).append(at)
        return list(found.values())

    def _root(self, at: int) -> int:
        while self._parent[at] != at:
            self._parent[at] = self._parent[self._parent[at]]
            at = self._parent[at]
        return at

    def _join(self, first: int, second: int) -> None:
        roots = sorted((self._root(first), self._root(second)))
        self._parent[roots[1]] = roots[0]


def deal(
    units: Sequence[tuple[str, Mapping[str, int]]], shares: Mapping[Role, float], draw: Callable[[str], bytes]
) -> list[Role]:
    """A part for each unit.

    A unit is its text and how many entries it has in each list. Units are taken in the order of `draw(text)`; each
    goes to the part that lacks most, over all its lists, of its share. So every part of every list comes within a
    unit or so of its share, whatever the order.
    """
    totals: Counter[str] = Counter()
    for _, weights in units:
        totals.update(weights)
    have: dict[Role, Counter[str]] = {role: Counter() for role in shares}

    def lack(role: Role, weights: Mapping[str, int]) -> float:
        return sum(
            weight * (shares[role] * totals[name] - have[role][name]) / totals[name] for name, weight in weights.items()
        )

    roles = [Role.FIT] * len(units)
    for at in sorted(range(len(units)), key=lambda at: (draw(units[at][0]), units[at][0])):
        weights = units[at][1]
        role = max(shares, key=lambda role: (lack(role, weights), shares[role], role))
        have[role].update(weights)
        roles[at] = role
    return roles


def fixed_draw(kind: str) -> Callable[[str], bytes]:
    """The order of words and templates: the same for every job, whatever its seed."""
    return lambda text: hashlib.sha256(f"cloister/partition/v1\0{kind}\0{text}".encode()).digest()


def seeded_draw(seed: int) -> Callable[[str], bytes]:
    """The order of rows of one job."""
    return lambda text: hashlib.sha256(f"cloister/partition/v1\0rows\0{seed}\0{text}".encode()).digest()
