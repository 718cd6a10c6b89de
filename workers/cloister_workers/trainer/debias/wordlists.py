# SPDX-License-Identifier: Apache-2.0
"""The word lists that a mitigation works with: those of its axes, long enough, with something to swap."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from cloister_workers.messages import FailureNumber, RefusalReason
from cloister_workers.trainer.debias.lexicon import MIN_TERMS, Lexicon
from cloister_workers.trainer.debias.mitigation import Case, Refused

_BETWEEN = "*"  # between the axes of an intersection


def lexicons_of_axes(case: Case, lexicons: Mapping[str, Lexicon]) -> dict[str, Lexicon]:
    """Those of `lexicons` that the job's axes name, an intersection by its parts, in the job's order."""
    names = dict.fromkeys(name for axis in case.axes for name in axis.split(_BETWEEN))
    return {name: lexicons[name] for name in names if name in lexicons}


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
