# SPDX-License-Identifier: Apache-2.0
"""Entities in sequences of tags, as the CoNLL-2003 evaluation finds and counts them (Tjong Kim Sang and De Meulder
2003): an entity is right where type, first and last token are.

Tags are `O`, `B-type` and `I-type`. A B- always begins an entity; an I- does where what stands before it is no entity
of its type. So IOB1, IOB2 (BIO) are both read right.
"""

from __future__ import annotations

from collections.abc import Sequence

Entity = tuple[str, int, int]
"""Type, first token, token after the last."""
OUTSIDE = "O"


def is_tag(tag: str) -> bool:
    """Whether it is O, B-type or I-type."""
    return tag == OUTSIDE or (tag[:2] in ("B-", "I-") and bool(tag[2:].strip()))


def entities(tags: Sequence[str]) -> set[Entity]:
    """The entities of one sequence."""
    found: set[Entity] = set()
    kind, start = "", 0
    for place, tag in enumerate([*tags, OUTSIDE]):
        prefix, _, now = tag.partition("-")
        if kind and (prefix == "B" or now != kind):
            found.add((kind, start, place))
            kind = ""
        if now and not kind:
            kind, start = now, place
    return found


def counts(predicted: Sequence[str], true: Sequence[str]) -> tuple[int, int, int]:
    """Entities of one sequence that are right, that are predicted, and that there are."""
    said, are = entities(predicted), entities(true)
    return len(said & are), len(said), len(are)
