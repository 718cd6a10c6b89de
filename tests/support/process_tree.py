# SPDX-License-Identifier: Apache-2.0
"""Descendants of a process, as /proc tells them."""

from __future__ import annotations

from pathlib import Path

PROC = Path("/proc")
TRAINER = b"cloister_workers.trainer"


def descendants(pid: int) -> list[int]:
    """Every process below one, children before their own children."""
    found: list[int] = []
    for task in sorted((PROC / str(pid) / "task").glob("*")):
        try:
            children = [int(child) for child in (task / "children").read_text().split()]
        except OSError:
            continue  # it ended while it was looked at
        for child in children:
            found += [child, *descendants(child)]
    return found


def trainer_of(agent: int) -> int | None:
    """The trainer below an agent: the process that runs the module, not those that set its sandbox up."""
    for pid in reversed(descendants(agent)):
        try:
            arguments = (PROC / str(pid) / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if TRAINER in arguments:
            return pid
    return None
