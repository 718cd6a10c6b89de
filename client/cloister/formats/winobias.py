# SPDX-License-Identifier: Apache-2.0
"""WinoBias (Zhao et al. 2018): numbered sentences with the pronoun and the person that it means in brackets.

    1 [The baker] thanked the clerk because [she] had found the keys.

Type and condition are told from the file's name (`pro_stereotyped_type1.txt.dev`), else by the options `type` and
`condition`.  The other person is the one of those bracketed anywhere in the file that stands in the sentence too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cloister.errors import UsageError
from cloister.formats.reading import Bad, Entry, Format, Head, Options, Row, lines_of

_NAME = re.compile(r"(pro|anti)_stereotyped_type([12])\.txt(?:\.(\w+))?", re.IGNORECASE)
_LINE = re.compile(r"\s*(\d+)\s+(\S.*?)\s*$")
_BRACKETS = re.compile(r"\[([^\[\]]+)\]")
_PRONOUNS = frozenset({"he", "him", "his", "himself", "she", "her", "hers", "herself"})
_ARTICLE = re.compile(r"^(the|an?|this)\s+", re.IGNORECASE)


@dataclass(frozen=True)
class _Sentence:
    id: str
    text: str
    pronoun: str
    person: str
    """With its article, as it stands there."""
    place: int
    """Where the person stands in `text`."""


def _fits(head: Head) -> bool:
    first = next((line for line in head.text.splitlines() if line.strip()), "")
    brackets = [found.lower() for found in _BRACKETS.findall(first)]
    return bool(_LINE.match(first)) and len(brackets) >= 2 and any(found in _PRONOUNS for found in brackets)


def _read(path: Path, options: Options) -> Iterator[Entry]:
    kind, condition, split = _told(path, options)
    sentences = [(line, _sentence(text)) for line, text in lines_of(path) if isinstance(text, Bad) or text.strip()]
    people = sorted({_bare(found.person) for _, found in sentences if isinstance(found, _Sentence)}, key=len)
    for line, found in sentences:
        yield line, found if isinstance(found, Bad) else _row(found, people, (kind, condition, split))


def _told(path: Path, options: Options) -> tuple[int, str, str]:
    named = _NAME.fullmatch(path.name)
    condition = options.get("condition", named[1].lower() if named else "")
    kind = options.get("type", named[2] if named else "")
    if condition not in ("pro", "anti") or kind not in ("1", "2"):
        raise UsageError(
            f"{path.name}: its name does not tell which WinoBias file it is; add --option type=1 (or 2) and "
            "--option condition=pro (or anti)"
        )
    return int(kind), condition, (named[3] or "" if named else "")


def _sentence(line: str | Bad) -> _Sentence | Bad:
    if isinstance(line, Bad):
        return line
    numbered = _LINE.match(line)
    if numbered is None:
        return Bad("no number before its sentence")
    marked = numbered[2]
    found = list(_BRACKETS.finditer(marked))
    pronouns = [item for item in found if item[1].strip().lower() in _PRONOUNS]
    people = [item for item in found if item not in pronouns]
    if not pronouns or len(people) != 1:
        return Bad("not one person and a pronoun in brackets")
    brackets_before = 2 * found.index(people[0])
    text = re.sub(r"[\[\]]", "", marked)
    return _Sentence(
        numbered[1], text, pronouns[0][1].strip(), people[0][1].strip(), people[0].start() - brackets_before
    )


def _row(found: _Sentence, people: Sequence[str], told: tuple[int, str, str]) -> Row | Bad:
    others = [item for name in people if name != _bare(found.person) if (item := _find(name, found))]
    if len(others) != 1:
        return Bad("its second person is not found: no line of the file has that one in brackets, or there are two")
    other = others[0]
    first = found.place < other.start()
    kind, condition, split = told
    return {
        "kind": "winobias",
        "id": "-".join(part for part in (condition, str(kind), split, found.id) if part),
        "type": kind,
        "condition": condition,
        "text": found.text,
        "pronoun": found.pronoun,
        "antecedents": [found.person, other[0]] if first else [other[0], found.person],
        "answer": 0 if first else 1,
    }


def _find(name: str, found: _Sentence) -> re.Match[str] | None:
    """Somebody else in the sentence, with the article."""
    pattern = rf"\b(?:(?:the|an?|this)\s+)?{re.escape(name)}\b"
    own = range(found.place, found.place + len(found.person))
    places = re.finditer(pattern, found.text, re.IGNORECASE)
    return next((item for item in places if item.end() <= own.start or item.start() >= own.stop), None)


def _bare(person: str) -> str:
    return _ARTICLE.sub("", person).lower()


FORMAT = Format(
    "winobias", "WinoBias, numbered sentences with brackets", _fits, _read, options=frozenset({"type", "condition"})
)
