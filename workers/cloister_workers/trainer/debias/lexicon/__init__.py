# SPDX-License-Identifier: Apache-2.0
"""Word lists of an axis: who the groups are, which words stand for them, and what prejudice says of them.

terms.py     what a lexicon is made of
builtin.py   the lists that come with this package (`data/`), written for it
rows.py      lists that users bring as rows of a dataset
english.py, german.py   how a word is swapped without breaking the sentence
"""

from __future__ import annotations

from cloister_workers.trainer.debias.lexicon.builtin import axes, languages, load_lexicon
from cloister_workers.trainer.debias.lexicon.terms import (
    MIN_TERMS,
    Association,
    Lexicon,
    Short,
    SwapSet,
    check_sizes,
    fill,
)

__all__ = [
    "Lexicon",
    "SwapSet",
    "Association",
    "load_lexicon",
    "axes",
    "languages",
    "MIN_TERMS",
    "Short",
    "check_sizes",
    "fill",
]
