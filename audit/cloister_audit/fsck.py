# SPDX-License-Identifier: Apache-2.0
"""Recomputes everything derivable from the stored entries and names the first difference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import Connection, func, select

from cloister.evidence.checkpoint import open_checkpoint
from cloister.evidence.entry import Entry
from cloister.evidence.errors import EvidenceError
from cloister.evidence.merkle import Frontier, leaf_hash, verify_consistency
from cloister_audit.errors import AuditCorruptError
from cloister_audit.proofs import consistency
from cloister_audit.query import stream
from cloister_audit.tables import audit_checkpoint, audit_entry, audit_head, audit_node

if TYPE_CHECKING:
    from cloister.evidence.note import NoteVerifier


RECENT = 1000
"""Entries that a quick look re-hashes."""


@dataclass(frozen=True)
class Recent:
    """What a quick look saw."""

    size: int
    signed_size: int
    """Entries under the newest signed head; 0 where none was signed."""
    signed_at: int
    """Microseconds since 1970, UTC."""
    checked: int


def check_recent(connection: Connection, verifier: NoteVerifier, last: int = RECENT) -> Recent:
    """A quick look: the newest entries against their hashes, and the newest signed head against the log now.

    It does not find a change in an old entry; `check` does.  Raises AuditCorruptError with the first difference.
    """
    stored = connection.execute(select(audit_head.c.frontier)).scalar_one_or_none()
    if stored is None:
        raise AuditCorruptError("the ledger has no head row")
    frontier = Frontier.from_bytes(stored)
    first = max(0, frontier.size - last)
    checked = 0
    for seq, body in enumerate(stream(connection, first, frontier.size), first):
        _check_entry(body, seq)
        _check_node(connection, 0, seq, leaf_hash(body))
        checked += 1
    if checked != frontier.size - first:
        raise AuditCorruptError(f"{frontier.size - first - checked} of the newest {last} entries are missing")
    newest = connection.execute(
        select(audit_checkpoint).order_by(audit_checkpoint.c.size.desc()).limit(1)
    ).one_or_none()
    if newest is None:
        return Recent(frontier.size, 0, 0, checked)
    _check_extended(connection, newest.note, frontier, verifier)
    return Recent(frontier.size, newest.size, newest.signed_at, checked)


def check(connection: Connection, verifier: NoteVerifier) -> int:
    """Check entries, stored hashes, head and every stored checkpoint; return the number of entries.

    Raises AuditCorruptError with the first difference.
    """
    notes = {row.size: row.note for row in connection.execute(select(audit_checkpoint))}
    frontier = Frontier()
    end = connection.execute(select(func.max(audit_entry.c.seq))).scalar_one()
    total = 0 if end is None else int(end) + 1
    _check_note(notes.pop(0, None), frontier, verifier)
    for body in stream(connection, 0, total):
        _check_entry(body, frontier.size)
        size = frontier.size
        frontier, completed = frontier.append_nodes(leaf_hash(body))
        for level, value in enumerate(completed):
            _check_node(connection, level, size >> level, value)
        _check_note(notes.pop(frontier.size, None), frontier, verifier)
    if frontier.size != total:
        raise AuditCorruptError(f"{total} positions are used, {frontier.size} entries are stored: some are missing")
    stored = connection.execute(select(audit_head.c.frontier)).scalar_one_or_none()
    if stored != frontier.to_bytes():
        raise AuditCorruptError("the head row does not match the entries")
    if notes:
        raise AuditCorruptError(f"a head over {max(notes)} entries was signed, {total} are stored: rolled back")
    return total


def _check_entry(body: bytes, seq: int) -> None:
    try:
        entry = Entry.parse(body)
    except EvidenceError as error:
        raise AuditCorruptError(f"entry {seq}: {error}") from None
    if entry.seq != seq:
        raise AuditCorruptError(f"entry {seq} says that it is entry {entry.seq}")


def _check_node(connection: Connection, level: int, index: int, value: bytes) -> None:
    query = select(audit_node.c.hash).where(audit_node.c.level == level, audit_node.c.idx == index)
    if connection.execute(query).scalar_one_or_none() != value:
        raise AuditCorruptError(f"hash {index} of level {level} does not match the entries")


def _check_note(note: bytes | None, frontier: Frontier, verifier: NoteVerifier) -> None:
    if note is None:
        return
    try:
        checkpoint = open_checkpoint(note, verifier, verifier.name)
    except EvidenceError as error:
        raise AuditCorruptError(f"the checkpoint at {frontier.size} entries: {error}") from None
    if (checkpoint.size, checkpoint.root) != (frontier.size, frontier.root()):
        raise AuditCorruptError(f"the checkpoint at {frontier.size} entries does not match them")


def _check_extended(connection: Connection, note: bytes, frontier: Frontier, verifier: NoteVerifier) -> None:
    try:
        head = open_checkpoint(note, verifier, verifier.name)
        if head.size > frontier.size:
            raise AuditCorruptError(
                f"a head over {head.size} entries was signed, {frontier.size} are stored: rolled back"
            )
        proof = consistency(connection, head.size, frontier.size)
        verify_consistency(head.size, head.root, frontier.size, frontier.root(), proof)
    except EvidenceError as error:
        raise AuditCorruptError(f"the log does not extend its newest signed head: {error}") from None
