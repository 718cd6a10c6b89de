# SPDX-License-Identifier: Apache-2.0
"""Follows a guide to the letter: its blocks are run on the machines that they name, its files carried."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

from machines import Machine

_STEP = re.compile(r"<!-- ([a-z ]+): (.+?) -->|^ *```(\w*)[^\n]*\n(.+?)^ *```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Commands:
    """Lines to type on each of some machines."""

    machines: tuple[str, ...]
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Carry:
    """A file that goes from one machine to another."""

    source: tuple[str, str]
    target: tuple[str, str]


def steps(text: str, part: str = "") -> Iterator[Commands | Carry]:
    """What a guide says to do, in order; `part` names what is done.  A block of no machine is not a step."""
    machines: tuple[str, ...] = ()
    for match in _STEP.finditer(text):
        kind, value, language, block = match.groups()
        if kind == f"{part} on".strip():
            machines = tuple(value.split())
        elif kind == f"{part} carry".strip():
            source, target = (tuple(end.split(":", 1)) for end in value.split())
            yield Carry((source[0], source[1]), (target[0], target[1]))
        elif machines and language in ("", "sh"):
            yield Commands(machines, tuple(dedent(block).strip().splitlines()))
            machines = ()


def follow(
    guide: Path, made: Mapping[str, Machine], part: str = "", words: Mapping[str, str] | None = None
) -> dict[str, list[tuple[str, str]]]:
    """Do it all, with other names where `words` has them for the guide's.

    Returns, by machine, each line with what it printed; a line that fails ends it.
    """
    said: dict[str, list[tuple[str, str]]] = {name: [] for name in made}
    text = guide.read_text()
    for there, here in (words or {}).items():
        assert there in text, f"{guide.name} does not say {there}"
        text = text.replace(there, here)
    for step in steps(text, part):
        if isinstance(step, Carry):
            made[step.target[0]].put(made[step.source[0]].folder / step.source[1].lstrip("/"), step.target[1])
            continue
        for name in step.machines:
            said[name] += [(line, typed(made[name], line)) for line in step.lines]
    return said


def typed(machine: Machine, line: str) -> str:
    """Type a line into the machine's one shell, whose folder and variables last."""
    before = "cd /root; [ ! -f /run/guide ] || . /run/guide"
    after = '{ export -p | grep " CLOISTER_" || true; printf "cd %q\\n" "$PWD"; } > /run/guide'
    return machine.shell(f"{before}\n{line}\n{after}")
