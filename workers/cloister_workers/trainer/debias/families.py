# SPDX-License-Identifier: Apache-2.0
"""Pairs of completions to learn a preference from, in families whose goals hang together."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from cloister_workers.trainer.debias.comparisons import Comparison
from cloister_workers.trainer.debias.lexicon import Lexicon
from cloister_workers.trainer.debias.shapes import Preference as Row
from cloister_workers.trainer.debias.swapping import NotSwapped, Swapper, Why
from cloister_workers.trainer.example import Example
from cloister_workers.trainer.objectives.preference import Preference, Reference

_BETWEEN, _PAUSE = "\x1e", " ."  # what stands between the texts of a row while they are swapped together


@dataclass(frozen=True)
class Family:
    """The same two completions after one prompt or several."""

    prompts: tuple[str, ...]
    chosen: str
    rejected: str
    given: bool = False
    """The chosen completion is the better one, as a row says; else neither is."""

    def rows(self) -> list[dict[str, object]]:
        return [{"prompt": prompt, "chosen": self.chosen, "rejected": self.rejected} for prompt in self.prompts]

    def goal(self, margins: Sequence[float]) -> float | None:
        """The margin of the chosen completion to learn, nats, from those before training; None: as large as it gets."""
        if self.given:
            return None
        return math.fsum(margins) / len(margins) if len(margins) > 1 else 0.0


def from_comparisons(found: Iterable[Comparison]) -> list[Family]:
    """Two prompts each; which completion is called chosen changes from one to the next, because neither is."""
    families = []
    for number, entry in enumerate(found):
        prompts, ways = entry.choices()
        families.append(Family(prompts, ways[number % 2], ways[1 - number % 2]))
    return families


def from_rows(rows: Iterable[Row], lexicons: Mapping[str, Lexicon], seed: int) -> list[Family]:
    """Each row, and each row with the groups of an axis swapped. A row without a term stays alone; one with a term that
    cannot be swapped is left out, because it would speak for one side.
    """
    swapper = Swapper(lexicons)
    found: dict[Family, None] = {}
    for row in rows:
        axes = [row.axis] if row.axis else list(lexicons)
        own = Family((row.prompt,), row.chosen, row.rejected, given=True)
        swaps = [_swapped(own, swapper, axis, seed) for axis in axes]
        others = [swap for swap in swaps if isinstance(swap, Family)]
        if not others and any(swap is not Why.NO_TERM for swap in swaps):
            continue
        contradicted = replace(own, chosen=own.rejected, rejected=own.chosen) in others
        kept = [replace(own, given=False)] if contradicted else [own, *others]
        found.update(dict.fromkeys(kept))
    return list(found)


def _swapped(family: Family, swapper: Swapper, axis: str, seed: int) -> Family | Why:
    """All three texts with one and the same exchange of groups."""
    [prompt] = family.prompts
    texts = (prompt, family.chosen + _PAUSE, family.rejected)
    swap = swapper.swap(_BETWEEN.join(texts), axis, seed=seed)
    if isinstance(swap, NotSwapped):
        return swap.reason
    parts = swap.text.split(_BETWEEN)
    if len(parts) != len(texts):
        return Why.AMBIGUOUS
    return replace(family, prompts=(parts[0],), chosen=parts[1].removesuffix(_PAUSE), rejected=parts[2])


def goals(objective: Preference, families: Iterable[tuple[Family, Sequence[Example]]]) -> dict[bytes, Reference]:
    """What `objective` knows of each example, with the certainty at which its loss is least at the family's goal."""
    known = dict(objective.reference)
    for family, examples in families:
        entries = [known[example.digest] for example in examples]
        goal = family.goal([entry.margin for entry in entries])
        if goal is not None:
            for example, entry in zip(examples, entries, strict=True):
                gain = objective.beta * (goal - entry.margin)
                known[example.digest] = replace(entry, certainty=1 / (1 + math.exp(-gain)))
    return known
