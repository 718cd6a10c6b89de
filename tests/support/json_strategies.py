# SPDX-License-Identifier: Apache-2.0
"""JSON values and changes of good documents, for hypothesis.  What is drawn does not depend on the document."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from hypothesis import strategies as st

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"

_LONG = st.integers(5_000, 30_000).map(lambda size: "x" * size)
_TEXTS = (
    st.sampled_from(["", "\x00", "a", "-1", "42.0", "a/../b", "\ud800", "\U0001f9ea"]) | st.text(max_size=8) | _LONG
)
_INTEGERS = st.sampled_from([-1, 0, 1, 2, 10**11, 2**53 - 1, 2**53, 2**63, 2**64, 10**30]) | st.integers()
_NUMBERS = _INTEGERS | st.floats() | st.integers(-2, 100).map(float)


def values(*, depth: int = 3) -> st.SearchStrategy[Json]:
    """Any JSON value, with the numbers and texts at which readers go wrong."""
    plain: st.SearchStrategy[Json] = st.none() | st.booleans() | _NUMBERS | _TEXTS
    if depth == 0:
        return plain
    inner = values(depth=depth - 1)
    return plain | st.lists(inner, max_size=3) | st.dictionaries(_TEXTS, inner, max_size=3)


@dataclass(frozen=True)
class Edit:
    """Change one place of an object: the numbers choose it among what is there."""

    steps: tuple[int, ...]
    kind: str
    """set, remove or add"""
    name: str
    value: Json

    def apply(self, document: dict[str, Json]) -> dict[str, Json]:
        """A changed copy."""
        changed = dict(document)
        keys = sorted(changed)
        if not keys or self.kind == "add":
            changed[self.name] = self.value
            return changed
        key = keys[self.steps[0] % len(keys)]
        inner = changed[key]
        if isinstance(inner, Mapping) and len(self.steps) > 1:
            changed[key] = Edit(self.steps[1:], self.kind, self.name, self.value).apply(dict(inner))
        elif self.kind == "remove":
            del changed[key]
        else:
            changed[key] = self.value
        return changed


def edits(*, most: int = 2) -> st.SearchStrategy[list[Edit]]:
    """Some changes."""
    steps = st.lists(st.integers(0, 63), min_size=1, max_size=4).map(tuple)
    one = st.builds(Edit, steps, st.sampled_from(["set", "set", "set", "remove", "add"]), _TEXTS, values())
    return st.lists(one, min_size=1, max_size=most)


def edited(document: dict[str, Json], several: list[Edit]) -> dict[str, Json]:
    """The document after all changes."""
    for edit in several:
        document = edit.apply(document)
    return document
