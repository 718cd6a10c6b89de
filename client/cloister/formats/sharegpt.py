# SPDX-License-Identifier: Apache-2.0
"""ShareGPT: JSON or JSONL with `conversations` of {from, value}, and perhaps `system` and `tools`, as messages.

A turn from `function_call` holds calls as JSON, {name, arguments} or several; one from `observation`, `tool` or
`function` what came of them.
`tools` is a list of functions, or JSON of one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from cloister.formats.reading import Bad, Entry, Format, Head, Options, Row, filled, json_objects, keys_of
from cloister.formats.shapes import answered

ROLES: Mapping[str, str] = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "function_call": "assistant",
    "observation": "tool",
    "function": "tool",
    "tool": "tool",
}
"""Who speaks, by what the file calls it."""
_CALL = "function_call"


def _fits(head: Head) -> bool:
    return "conversations" in keys_of(head)


def _read(path: Path, _options: Options) -> Iterator[Entry]:
    for place, found in json_objects(path):
        yield place, found if isinstance(found, Bad) else _row(found)


def _row(found: Row) -> Row | Bad:
    turns, system = found.get("conversations"), found.get("system") or ""
    if not isinstance(turns, list) or not isinstance(system, str):
        return Bad("conversations are no list, or system is no text")
    messages: list[dict[str, object]] = [{"role": "system", "content": system}] if system else []
    for turn in turns:
        message = _message(turn)
        if isinstance(message, Bad):
            return message
        messages.append(message)
    tools = _tools(found.get("tools"))
    if isinstance(tools, Bad):
        return tools
    row = {"messages": messages, **({"tools": tools} if tools else {})}
    return answered(row) or row


def _message(turn: object) -> dict[str, object] | Bad:
    said_by = turn.get("from") if isinstance(turn, dict) else None
    role = ROLES.get(said_by) if isinstance(said_by, str) else None
    if not isinstance(turn, dict) or role is None:
        return Bad(f"a turn is not from {', '.join(ROLES)}")
    if filled(turn, "value"):
        return Bad("a turn has no value")
    if said_by != _CALL:
        return {"role": role, "content": turn["value"]}
    calls = _parsed(turn["value"])
    made = [_call(entry) for entry in (calls if isinstance(calls, list) else [calls])]
    good = [call for call in made if call is not None]
    if not good or len(good) != len(made):
        return Bad("a function_call is no JSON of a name and arguments")
    return {"role": role, "content": "", "tool_calls": good}


def _call(entry: object) -> dict[str, object] | None:
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        return None
    return {"type": "function", "function": {"name": entry["name"], "arguments": entry.get("arguments", {})}}


def _tools(value: object) -> list[object] | Bad:
    found = _parsed(value) if isinstance(value, str) and value.strip() else value or []
    if not isinstance(found, list) or not all(isinstance(tool, dict) for tool in found):
        return Bad("tools are no list of functions, or no JSON of one")
    return [tool if "type" in tool and "function" in tool else {"type": "function", "function": tool} for tool in found]


def _parsed(value: str) -> object:
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return None


FORMAT = Format("sharegpt", "ShareGPT, JSON or JSONL", _fits, _read, units={".json": "entry"})
