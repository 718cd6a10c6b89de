# SPDX-License-Identifier: Apache-2.0
"""The word lists that come with the package: `data/<language>/<axis>/`, lists of all axes in `data/<language>/`.

    swaps.tsv          tag, use, person, then one column a group, named in the head
    names.tsv          one column a group
    associations.tsv   name, first, second: one pair of attributes a line
    templates.txt, pair_templates.txt, neutral.txt, excluded.txt, ambiguous.txt   one entry a line

Lines that begin with # are remarks. A text file may stand in both folders; its lines are then joined.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable

from cloister_workers.trainer.debias.lexicon.terms import Association, Lexicon, SwapSet


def languages() -> tuple[str, ...]:
    """Codes of the languages that have lists, for example `en`."""
    return tuple(sorted(entry.name for entry in _data().iterdir() if entry.is_dir()))


def axes(language: str) -> tuple[str, ...]:
    """Axes that have lists in `language`; none for a language without any."""
    if language not in languages():
        return ()
    return tuple(sorted(entry.name for entry in (_data() / language).iterdir() if entry.is_dir()))


@cache
def load_lexicon(axis: str, language: str) -> Lexicon:
    """The whole list of an axis. Raises ValueError where there is none, naming those that there are."""
    if axis not in axes(language):
        have = ", ".join(f"{known} ({code})" for code in languages() for known in axes(code))
        raise ValueError(f"no built-in word list for axis {axis} in language {language}; there are {have}")
    common = _data() / language
    own = common / axis
    groups, swaps = _swaps(own)
    return Lexicon(
        axis=axis,
        language=language,
        groups=groups,
        swaps=swaps,
        names=tuple(SwapSet(tuple(row), "name", person="{}") for row in _table(own, "names.tsv")[1:]),
        associations=_associations(own),
        templates=_lines(common, own, "templates.txt"),
        pair_templates=_lines(common, own, "pair_templates.txt"),
        neutral=_lines(common, own, "neutral.txt"),
        excluded=frozenset(_lines(common, own, "excluded.txt")),
        ambiguous=frozenset(_lines(common, own, "ambiguous.txt")),
    )


def _data() -> Traversable:
    return files(__package__) / "data"


def _read(folder: Traversable, name: str) -> list[str]:
    path = folder / name
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line.strip() and not line.startswith("#")]


def _lines(common: Traversable, own: Traversable, name: str) -> tuple[str, ...]:
    return tuple(line.strip() for folder in (own, common) for line in _read(folder, name))


def _table(folder: Traversable, name: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("\t")] for line in _read(folder, name)]


def _swaps(folder: Traversable) -> tuple[tuple[str, ...], tuple[SwapSet, ...]]:
    head, *rows = _table(folder, "swaps.tsv")
    sets = tuple(SwapSet(tuple(words), tag, use, person) for tag, use, person, *words in rows)
    return tuple(head[3:]), sets


def _associations(folder: Traversable) -> tuple[Association, ...]:
    found: dict[str, tuple[list[str], list[str]]] = {}
    for name, first, second in _table(folder, "associations.tsv")[1:]:
        firsts, seconds = found.setdefault(name, ([], []))
        firsts.append(first)
        seconds.append(second)
    return tuple(Association(name, tuple(first), tuple(second)) for name, (first, second) in found.items())
