# SPDX-License-Identifier: Apache-2.0
"""Offline verification of an exported log: nothing but the export, a verifier key and remembered checkpoints.

Steps: (1) the checkpoint's form and signature; (2) every stored line is re-hashed, its place checked; (3) the
tree is rebuilt and compared with the signed root; (4) every checkpoint that the auditor brings is compared with
the tree at that size.  Uses memory for one frontier and the brought checkpoints only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cloister.evidence.checkpoint import Checkpoint, open_checkpoint
from cloister.evidence.entry import Entry
from cloister.evidence.errors import EvidenceError, ForkError, FormatError, RollbackError, TamperedError, TruncatedError
from cloister.evidence.merkle import Frontier, leaf_hash

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cloister.evidence.note import NoteVerifier

EXIT_CODES = {
    "TAMPERED": 10,
    "BAD_FORMAT": 10,
    "TRUNCATED": 11,
    "FORK": 12,
    "BAD_SIGNATURE": 13,
    "ROLLBACK": 15,
}
"""Exit status of a verifier for each `EvidenceError.reason`."""

_ENDS = ("job.end", "release.end", "job.attempt.end", "backup.create", "site.restore")
"""Outcomes that close an intent.  A restored log ends inside the backup that it came from, so a restore closes that."""


@dataclass(frozen=True)
class Verdict:
    """What a good log says."""

    origin: str
    size: int
    root: bytes
    first_ts: int
    last_ts: int
    clock_steps_back: int
    """Entries with an earlier time than the one before: a warning, not damage."""
    actions: dict[str, int]
    """How often each action occurs."""
    unfinished: tuple[str, ...]
    """Work ids with an intent but no outcome: still running, or left open by a crash."""


def verify_log(
    lines: Iterable[bytes], note: bytes, verifier: NoteVerifier, remembered: Sequence[Checkpoint] = ()
) -> Verdict:
    """Verify entries (canonical bytes, without line ends) against a signed checkpoint.

    Raises SignatureError, TamperedError, TruncatedError, ForkError, RollbackError.
    """
    head = open_checkpoint(note, verifier, verifier.name)
    for old in remembered:
        if old.origin != head.origin:
            raise FormatError(f"the brought checkpoint is of log {old.origin!r}, the export of {head.origin!r}")
        if old.size > head.size:
            raise RollbackError(
                f"the export ends at entry {head.size}, your checkpoint covers {old.size}: the log was rolled back"
            )
    scan = _Scan({old.size for old in remembered})
    for line in lines:
        if scan.size == head.size:
            raise TamperedError(f"the export holds more entries than the {head.size} that the checkpoint covers")
        scan.add(line)
    if scan.size < head.size:
        raise TruncatedError(f"the export holds {scan.size} entries, the checkpoint covers {head.size}")
    if scan.frontier.root() != head.root:
        raise TamperedError(f"the {head.size} entries do not have the root that the log signed: an entry was changed")
    for old in remembered:
        if scan.roots[old.size] != old.root:
            raise ForkError(f"at {old.size} entries this log differs from the one that your checkpoint signs")
    return scan.verdict(head)


class _Scan:
    """One pass over the entries."""

    def __init__(self, wanted_sizes: set[int]) -> None:
        self.frontier = Frontier()
        self.size = 0
        self.roots: dict[int, bytes] = {}
        self._wanted = wanted_sizes
        self._first = self._last = self._steps_back = 0
        self._actions: dict[str, int] = {}
        self._open: dict[str, None] = {}
        self._note_root()

    def _note_root(self) -> None:
        if self.size in self._wanted:
            self.roots[self.size] = self.frontier.root()

    def add(self, line: bytes) -> None:
        try:
            entry = Entry.parse(line)
        except EvidenceError as error:
            raise TamperedError(f"entry {self.size}: {error}") from None
        if entry.seq != self.size:
            raise TamperedError(f"entry {self.size} says that it is entry {entry.seq}: one was removed, added or moved")
        self.frontier = self.frontier.append(leaf_hash(line))
        self.size += 1
        self._note_root()
        self._summarise(entry)

    def _summarise(self, entry: Entry) -> None:
        if self.size == 1:
            self._first = entry.ts
        elif entry.ts < self._last:
            self._steps_back += 1
        self._last = entry.ts
        event = entry.event
        self._actions[event.action] = self._actions.get(event.action, 0) + 1
        if event.stage == "intent":
            self._open[event.object.id] = None
        elif event.action in _ENDS:
            self._open.pop(event.object.id, None)

    def verdict(self, head: Checkpoint) -> Verdict:
        return Verdict(
            origin=head.origin,
            size=head.size,
            root=head.root,
            first_ts=self._first,
            last_ts=self._last,
            clock_steps_back=self._steps_back,
            actions=dict(sorted(self._actions.items())),
            unfinished=tuple(self._open),
        )
