# SPDX-License-Identifier: Apache-2.0
"""Alpaca: JSON or JSONL with `instruction`, `input`, `output`, and perhaps `system` and `history`, as messages.

`history` holds earlier turns, [[question, answer], ...].  `input` follows the instruction after a line end.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cloister.formats.reading import Bad, Entry, Format, Head, Options, Row, filled, json_objects, keys_of
from cloister.formats.shapes import answered


def _fits(head: Head) -> bool:
    return keys_of(head) >= {"instruction", "output"}


def _read(path: Path, _options: Options) -> Iterator[Entry]:
    for place, found in json_objects(path):
        yield place, found if isinstance(found, Bad) else _row(found)


def _row(found: Row) -> Row | Bad:
    if problem := filled(found, "instruction", "output"):
        return problem
    more = {name: found.get(name) or "" for name in ("input", "system")}
    stray = next((name for name, value in more.items() if not isinstance(value, str)), None)
    if stray:
        return Bad(f"{stray} is no text")
    history = found.get("history") or []
    if not isinstance(history, list) or not all(isinstance(turn, list) and len(turn) == len(_TURN) for turn in history):
        return Bad("history is no list of questions with answers")
    messages = [{"role": "system", "content": more["system"]}] if more["system"] else []
    messages += [{"role": role, "content": said} for turn in history for role, said in zip(_TURN, turn, strict=True)]
    asked = f"{found['instruction']}\n{more['input']}" if more["input"] else found["instruction"]
    row = {
        "messages": [
            *messages,
            {"role": "user", "content": asked},
            {"role": "assistant", "content": found["output"]},
        ]
    }
    return answered(row) or row


_TURN = ("user", "assistant")
FORMAT = Format("alpaca", "Alpaca, JSON or JSONL", _fits, _read, units={".json": "entry"})
