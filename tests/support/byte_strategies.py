# SPDX-License-Identifier: Apache-2.0
"""Damage of good bytes for hypothesis.  What is drawn does not depend on the bytes."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import strategies as st


@dataclass(frozen=True)
class Damage:
    """Change bytes at a place, given as a part of the whole from 0 to 1."""

    kind: str
    """replace, insert, cut (the rest goes) or repeat"""
    place: float
    piece: bytes

    def apply(self, data: bytes) -> bytes:
        at = int(self.place * len(data))
        if self.kind == "cut":
            return data[:at]
        if self.kind == "repeat":
            return data + data[at : at + 64] * 2
        skipped = len(self.piece) if self.kind == "replace" else 0
        return data[:at] + self.piece + data[at + skipped :]


_PIECES = st.sampled_from(
    [b"\0", b"\xff", b"\n", b'"', b"{", b"[" * 40, b"-1", b"9" * 5000, b"\xed\xa0\x80"]
) | st.binary(min_size=1, max_size=8)


def damages() -> st.SearchStrategy[list[Damage]]:
    """Some damage, or none."""
    kinds = st.sampled_from(["replace", "replace", "insert", "cut", "repeat"])
    return st.lists(st.builds(Damage, kinds, st.floats(0, 1), _PIECES), max_size=3)


def damaged(data: bytes, several: list[Damage]) -> bytes:
    """The bytes after all of it."""
    for damage in several:
        data = damage.apply(data)
    return data
