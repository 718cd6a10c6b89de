# SPDX-License-Identifier: Apache-2.0
"""What a key agent must never forget: the newest roster, the newest checkpoint, and what was opened.

One JSON file, replaced as a whole: written beside, to disk, renamed, folder to disk.  After a crash either the old
state is there or the new one.  A missing or damaged file is an error and never an empty memory, because a host that
forgets can be shown an old roster and a shortened log.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cloister.evidence.checkpoint import Checkpoint
from cloister.evidence.errors import EvidenceError
from cloister.evidence.restoration import LogMemory
from cloister.files import replace_private
from cloister_workers.keyagent.errors import MemoryDamagedError

STATE = "state.json"
KEEP_SECONDS = 30 * 24 * 3600
"""What was opened is remembered for so long after its authorisation has expired, which refuses it by itself."""


@dataclass(frozen=True)
class Opened:
    """The highest attempt of one piece of work that was opened, and until when it could be asked for again."""

    attempt: int
    expires_at: int


@dataclass(frozen=True)
class Remembered:
    """The state; `opened` has keys like "job:<id>" and "release:<id>"."""

    roster_version: int = 0
    roster_expires_at: int = 0
    checkpoint: str = ""
    """Signed note of the newest head of the log, or empty."""
    opened: Mapping[str, Opened] = field(default_factory=dict)
    restorations: int = 0
    """How many restored heads of the log were accepted."""

    @property
    def log(self) -> LogMemory:
        """What is kept of the log."""
        return LogMemory(self.checkpoint, self.restorations)

    def head(self) -> Checkpoint | None:
        """The newest head; its signature was verified before it was written here."""
        return self.log.head()

    def without_old(self, now: int) -> dict[str, Opened]:
        """`opened` without what cannot be asked for again."""
        return {key: item for key, item in self.opened.items() if now < item.expires_at + KEEP_SECONDS}


class Memory:
    """The file.  Not for use by two processes at once: `server` holds a lock on the directory."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / STATE
        self.state = _read(self._path)

    def replace(self, state: Remembered) -> None:
        """Make `state` the one that is remembered; returns when it is on disk.  Raises OSError."""
        write_state(self._path, state)
        self.state = state


def write_state(path: Path, state: Remembered) -> None:
    """Write the file; returns when it is on disk."""
    text = json.dumps(
        {
            "roster_version": state.roster_version,
            "roster_expires_at": state.roster_expires_at,
            "checkpoint": state.checkpoint,
            "restorations": state.restorations,
            "opened": {key: [item.attempt, item.expires_at] for key, item in state.opened.items()},
        }
    )
    replace_private(path, text.encode("utf-8"))


def _read(path: Path) -> Remembered:
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        state = Remembered(
            roster_version=_count(table["roster_version"]),
            roster_expires_at=_count(table["roster_expires_at"]),
            checkpoint=str(table["checkpoint"]),
            opened={str(k): Opened(_count(v[0]), _count(v[1])) for k, v in table["opened"].items()},
            # Absent in a file of an earlier version, which knew of none.
            restorations=_count(table.get("restorations", 0)),
        )
        state.head()
    except OSError as error:
        raise MemoryDamagedError(f"{path}: {error.strerror}; restore it, or have this host certified anew") from None
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError, EvidenceError):
        raise MemoryDamagedError(f"{path} is damaged; restore it, or have this host certified anew") from None
    return state


def _count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError("not a count")
    return value
