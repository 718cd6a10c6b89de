# SPDX-License-Identifier: Apache-2.0
"""The gate: everything is verified and remembered here before a key is used.

    (1) the roster is the pinned root's, not older than the newest one seen; a newer one is remembered at once, and
        with it the head at which it says that the log was restored
    (2) this attempt of this work was not opened before
    (3) all documents hold, and the log that proves the opening extends the one remembered
    (4) log head and attempt are on disk
    (5) only then does the caller get its leave

A crash between (4) and (5) costs an attempt and opens nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

from cloister.evidence.checkpoint import Checkpoint
from cloister.evidence.errors import ReplayError
from cloister.evidence.restoration import after_restorations
from cloister.evidence.roster import Roster, verify_roster
from cloister.evidence.signatures import Statement
from cloister_workers.keyagent.memory import Memory, Opened, Remembered
from cloister_workers.keyagent.vault import Vault


class Approved(Protocol):
    """What a verification leads to: at least the log's head that it relied on."""

    @property
    def checkpoint(self) -> Checkpoint: ...


A = TypeVar("A", bound=Approved)


@dataclass(frozen=True)
class Work:
    """What is asked to be opened.  The values are unverified: they may only lead to a refusal."""

    kind: str
    id: str
    attempt: int
    expires_at: int
    note: bytes
    """The signed checkpoint that comes with it."""

    @property
    def key(self) -> str:
        return f"{self.kind}:{self.id}"


class Gate:
    """One per host; safe for threads."""

    def __init__(self, vault: Vault, memory: Memory, clock: Callable[[], int]) -> None:
        self._vault = vault
        self._memory = memory
        self._clock = clock
        self._lock = threading.Lock()

    @property
    def remembered(self) -> Remembered:
        """What is remembered now."""
        return self._memory.state

    def update_roster(self, statement: Statement) -> Roster:
        """Accept a roster.  Raises EvidenceError, OSError."""
        with self._lock:
            return self._roster(statement, self._clock())

    def admit(
        self, work: Work, roster_statement: Statement, verify: Callable[[Roster, Checkpoint | None, int], A]
    ) -> tuple[Roster, A]:
        """Verify and remember; returns only when both are done.  Raises EvidenceError, OSError."""
        with self._lock:
            now = self._clock()
            roster = self._roster(roster_statement, now)
            self._check_new(work)
            approved = verify(roster, self.remembered.head(), now)
            opened = {**self.remembered.without_old(now), work.key: Opened(work.attempt, work.expires_at)}
            state = replace(self.remembered, checkpoint=work.note.decode("utf-8"), opened=opened)
            # Nothing may be unwrapped before this returns: a host that forgot the opening would repeat it.
            self._memory.replace(state)
            return roster, approved

    def _roster(self, statement: Statement, now: int) -> Roster:
        state = self.remembered
        roster = verify_roster(statement, self._vault.root_public, seen_version=state.roster_version, now=now)
        if roster.version > state.roster_version:
            log = after_restorations(state.log, roster)
            newer = replace(
                state,
                roster_version=roster.version,
                roster_expires_at=roster.expires_at,
                checkpoint=log.checkpoint,
                restorations=log.restorations,
            )
            self._memory.replace(newer)
        return roster

    def _check_new(self, work: Work) -> None:
        before = self.remembered.opened.get(work.key, Opened(0, 0)).attempt
        if work.attempt <= before:
            raise ReplayError(
                f"{work.kind} {work.id}: attempt {work.attempt} is asked for, {before} was opened here before"
            )
