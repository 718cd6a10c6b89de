# SPDX-License-Identifier: Apache-2.0
"""Recomputes everything derivable from the stored entries and names the first difference."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import Connection, func, select

from cloister.evidence.checkpoint import open_checkpoint
from cloister.evidence.entry import Entry
from cloister.evidence.errors import EvidenceError
from cloister.evidence.merkle import Frontier, leaf_hash
from cloister_audit.errors import AuditCorruptError
from cloister_audit.query import stream
from cloister_audit.tables import audit_checkpoint, audit_entry, audit_head, audit_node

if TYPE_CHECKING:
    from cloister.evidence.note import NoteVerifier


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
