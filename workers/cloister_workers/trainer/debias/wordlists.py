# SPDX-License-Identifier: Apache-2.0
"""The word lists of a job: those of its axes that a mitigation works with, and those that are too short."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from cloister_workers.messages import FailureNumber, RefusalReason
from cloister_workers.trainer.debias.lexicon import MIN_TERMS, Lexicon, Short, check_sizes
from cloister_workers.trainer.debias.measures.association import ROLES, AssociationTest
from cloister_workers.trainer.debias.mitigation import Case, Refused
from cloister_workers.trainer.debias.partition import Partition
from cloister_workers.trainer.debias.results import NotMeasured

_BETWEEN = "*"  # between the axes of an intersection


def lexicons_of_axes(case: Case, lexicons: Mapping[str, Lexicon]) -> dict[str, Lexicon]:
    """Those of `lexicons` that the job's axes name, an intersection by its parts, in the job's order."""
    names = dict.fromkeys(name for axis in case.axes for name in axis.split(_BETWEEN))
    return {name: lexicons[name] for name in names if name in lexicons}


def short_lists(parts: Partition, axes: Iterable[str]) -> tuple[NotMeasured, ...]:
    """Word lists with fewer than MIN_TERMS words that something may be measured on, for the report: those of the axes,
    all parts counted, and those of users' associations. Mitigations refuse them; a figure from them has this line.
    """
    names = dict.fromkeys(name for axis in axes for name in axis.split(_BETWEEN))
    found = [short for name in names if name in parts.lexicons for short in check_sizes(parts.lexicons[name])]
    for place, row in enumerate((row for row in parts.test.rows.of(AssociationTest) if row.axis in names), start=1):
        lists = zip(ROLES, row.lists(), strict=True)
        sizes = [(f"{role} of association row {place}", len(words)) for role, words in lists]
        found += [Short(row.axis, role, size) for role, size in sizes if size < MIN_TERMS]
    return tuple(
        NotMeasured(
            "word lists",
            short.axis,
            f"{short.list} has {short.count} words, fewer than {short.needed}: what was measured on it need not hold "
            "for other words",
        )
        for short in found
    )


def refuse_short_lists(case: Case) -> None:
    """Raises Refused TOO_FEW_TERMS where a group of an axis has fewer than MIN_TERMS words, those of all parts counted:
    what is learned on fewer words does not reach the others.
    """
    for number, lexicon in enumerate(lexicons_of_axes(case, case.fit.lexicons).values(), start=1):
        whole = replace(lexicon, names=(*lexicon.names, *lexicon.held_out))
        fewest = min(map(len, whole.terms().values()))
        if fewest < MIN_TERMS:
            raise Refused(
                RefusalReason.TOO_FEW_TERMS,
                f"a group of axis {number} has {fewest} words; give {MIN_TERMS} or more in rows of kind swap",
                {FailureNumber.ROWS: fewest},
            )
