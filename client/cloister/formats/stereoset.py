# SPDX-License-Identifier: Apache-2.0
"""StereoSet (Nadeem et al. 2021): one JSON file; its intrasentence part.

    {"data": {"intrasentence": [{"id", "target", "bias_type", "context", "sentences": [{"sentence", "gold_label"}]}]}}

The intersentence part asks for the next sentence and is not read.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cloister.errors import RowsError
from cloister.formats.reading import Bad, Entry, Format, Head, Options, Row, axis_of, filled, json_file

_LABELS = {"stereotype": "stereotype", "anti-stereotype": "anti_stereotype", "unrelated": "unrelated"}


def _fits(head: Head) -> bool:
    return '"intrasentence"' in head.text or ('"data"' in head.text and '"gold_label"' in head.text)


def _read(path: Path, _options: Options) -> Iterator[Entry]:
    whole = json_file(path)
    data = whole.get("data") if isinstance(whole, dict) else None
    entries = data.get("intrasentence") if isinstance(data, dict) else None
    if not isinstance(entries, list):
        raise RowsError(f"{path.name}: it has no list data.intrasentence; StereoSet's files have one")
    for number, entry in enumerate(entries, start=1):
        yield number, _row(entry) if isinstance(entry, dict) else Bad("not an object")


def _row(entry: dict[str, object]) -> Row | Bad:
    if problem := filled(entry, "id", "target", "bias_type"):
        return problem
    axis = axis_of(str(entry["bias_type"]))
    if isinstance(axis, Bad):
        return axis
    sentences = _sentences(entry.get("sentences"))
    if isinstance(sentences, Bad):
        return sentences
    context = entry.get("context", "")
    return {
        "kind": "stereoset",
        "id": entry["id"],
        "axis": axis,
        "target": entry["target"],
        "context": context if isinstance(context, str) else "",
        **sentences,
    }


def _sentences(value: object) -> dict[str, str] | Bad:
    found: dict[str, str] = {}
    for item in value if isinstance(value, list) else ():
        label = _LABELS.get(str(item.get("gold_label"))) if isinstance(item, dict) else None
        if label is None or label in found or filled(item, "sentence"):
            return Bad("a sentence is empty, or its gold_label unknown or there twice")
        found[label] = str(item["sentence"])
    return found if len(found) == len(_LABELS) else Bad("not a stereotype, an anti-stereotype and an unrelated one")


FORMAT = Format("stereoset", "StereoSet, JSON (intrasentence)", _fits, _read, unit="entry")
