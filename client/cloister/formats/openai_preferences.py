# SPDX-License-Identifier: Apache-2.0
"""Preferences as OpenAI has them: JSONL with `input.messages`, `preferred_output` and `non_preferred_output`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cloister.formats.reading import Bad, Entry, Format, Head, Options, Row, json_objects, keys_of
from cloister.formats.shapes import compared


def _fits(head: Head) -> bool:
    return keys_of(head) >= {"input", "preferred_output"}


def _read(path: Path, _options: Options) -> Iterator[Entry]:
    for place, found in json_objects(path):
        yield place, found if isinstance(found, Bad) else _row(found)


def _row(found: Row) -> Row | Bad:
    asked = found.get("input")
    if not isinstance(asked, dict):
        return Bad("input is no object with messages")
    lists = (asked.get("messages"), found.get("preferred_output"), found.get("non_preferred_output"))
    if not all(isinstance(value, list) for value in lists):
        return Bad("input.messages, preferred_output and non_preferred_output are no three lists")
    row = dict(zip(("prompt", "chosen", "rejected"), lists, strict=True))
    return compared(row) or row


FORMAT = Format("openai_preferences", "preferences, OpenAI's JSONL", _fits, _read, units={".json": "entry"})
