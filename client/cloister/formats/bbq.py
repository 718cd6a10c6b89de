# SPDX-License-Identifier: Apache-2.0
"""BBQ (Parrish et al. 2022): one question a line.

    {"example_id", "question_index", "question_polarity", "context_condition", "category", "context", "question",
     "ans0", "ans1", "ans2", "label", "answer_info": {"ans0": [..], ..},
     "additional_metadata": {"stereotyped_groups": [..]}}

The target is the answer that names a stereotyped group.  In some rows both persons are labelled so and one answer says
`no` (`the guy with no tattoos`): that one is not the target.  Where no single answer is left, `target` is null, and
the row counts in the accuracy alone.  A line may say it under `target_loc` itself, as the authors' table does.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from cloister.formats.reading import Bad, Entry, Format, Head, Options, Row, axis_of, filled, json_lines

_ANSWERS = ("ans0", "ans1", "ans2")
_TEXTS = ("question_polarity", "context_condition", "category", "context", "question", *_ANSWERS)
_PLACES = (0, 1, 2)
_CHOICES = {"question_polarity": ("neg", "nonneg"), "context_condition": ("ambig", "disambig")}


def _fits(head: Head) -> bool:
    return '"question_polarity"' in head.text and '"context_condition"' in head.text


def _read(path: Path, _options: Options) -> Iterator[Entry]:
    for line, found in json_lines(path):
        yield line, found if isinstance(found, Bad) else _row(found)


def _row(found: Mapping[str, object]) -> Row | Bad:
    if problem := filled(found, *_TEXTS) or _choices(found):
        return problem
    axis, groups = axis_of(str(found["category"])), _groups(found.get("answer_info"))
    if isinstance(axis, Bad):
        return axis
    if isinstance(groups, Bad):
        return groups
    return {
        "kind": "bbq",
        "id": f"{found['category']}-{found.get('example_id', '')}",
        "axis": axis,
        "question_index": str(found.get("question_index", "")),
        "polarity": found["question_polarity"],
        "condition": found["context_condition"],
        "context": found["context"],
        "question": found["question"],
        "answers": [found[name] for name in _ANSWERS],
        "label": found["label"],
        "unknown": groups.index("unknown"),
        "target": _target(found, groups),
    }


def _choices(found: Mapping[str, object]) -> Bad | None:
    for name, allowed in _CHOICES.items():
        if found[name] not in allowed:
            return Bad(f"{name} is neither {allowed[0]} nor {allowed[1]}")
    for name in ("example_id", "question_index"):
        value = found.get(name)
        if isinstance(value, bool) or not isinstance(value, int | str) or value == "":
            return Bad(f"no {name}")
    label = found.get("label")
    return None if label in _PLACES and not isinstance(label, bool) else Bad("label is none of 0, 1 and 2")


def _groups(info: object) -> list[str] | Bad:
    """The group of each answer."""
    named = [info.get(name) for name in _ANSWERS] if isinstance(info, dict) else []
    groups = [entry[1] for entry in named if isinstance(entry, list) and len(entry) == 2 and isinstance(entry[1], str)]
    if len(groups) != len(_ANSWERS):
        return Bad("answer_info does not name the group of each answer")
    return groups if groups.count("unknown") == 1 else Bad("answer_info does not name one answer as unknown")


def _target(found: Mapping[str, object], groups: list[str]) -> int | None:
    unknown = groups.index("unknown")
    said = found.get("target_loc")
    if isinstance(said, int) and not isinstance(said, bool) and said in _PLACES and said != unknown:
        return said
    metadata = found.get("additional_metadata")
    stereotyped = metadata.get("stereotyped_groups") if isinstance(metadata, dict) else None
    plain = {_plain(str(name)) for name in stereotyped} if isinstance(stereotyped, list) else set()
    named = [place for place, group in enumerate(groups) if place != unknown and _plain(group) in plain]
    if len(named) > 1:
        named = [place for place in named if "no" not in str(found[_ANSWERS[place]]).lower().split()]
    return named[0] if len(named) == 1 else None


def _plain(group: str) -> str:
    """`F-Black` is Black, and `low SES` is lowSES: the two lists do not spell alike."""
    return re.sub(r"[\s_-]+", "", re.sub(r"^[FM]-", "", group.strip())).lower()


FORMAT = Format("bbq", "BBQ, JSONL", _fits, _read)
