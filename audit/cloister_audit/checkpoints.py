# SPDX-License-Identifier: Apache-2.0
"""Signed heads.

Signing is a promise that cannot be taken back, so a head is signed only over committed entries, and only if it
extends the newest head that was signed before: a database restored to an older state stops here, it does not
get a second history signed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import Connection, Engine, func, insert, select
from sqlalchemy.exc import IntegrityError

from cloister.evidence.checkpoint import Checkpoint, open_checkpoint, sign_checkpoint
from cloister.evidence.errors import EvidenceError
from cloister.evidence.merkle import leaf_hash, verify_consistency
from cloister_audit.errors import AuditCorruptError
from cloister_audit.proofs import consistency
from cloister_audit.snapshot import snapshot
from cloister_audit.tables import audit_checkpoint, audit_entry, audit_node

if TYPE_CHECKING:
    from cloister.evidence.note import NoteSigner
    from cloister_audit.ledger import Ledger


def latest(engine: Engine, ledger: Ledger, signer: NoteSigner, now: int) -> tuple[Checkpoint, bytes]:
    """The head of the committed log and its signed note; the note is stored.

    `now` is microseconds since 1970, UTC.  Raises AuditCorruptError when the head does not extend the last one.
    """
    with snapshot(engine) as connection:
        head = ledger.head(connection)
        checkpoint = Checkpoint(signer.name, head.size, head.root)
        stored = stored_note(connection, head.size)
        if stored is not None and open_checkpoint(stored, signer.verifier, signer.name) == checkpoint:
            return checkpoint, stored
        _check_extends(connection, checkpoint, signer)
        _check_last_leaf(connection, checkpoint)
    note = sign_checkpoint(checkpoint, signer)
    _store(engine, checkpoint.size, note, now)
    return checkpoint, note


def stored_note(connection: Connection, size: int) -> bytes | None:
    """The note that was signed at this size, or None."""
    query = select(audit_checkpoint.c.note).where(audit_checkpoint.c.size == size)
    note: bytes | None = connection.execute(query).scalar_one_or_none()
    return note


def _check_extends(connection: Connection, head: Checkpoint, signer: NoteSigner) -> None:
    last = connection.execute(select(func.max(audit_checkpoint.c.size))).scalar_one()
    if last is None:
        return
    note = stored_note(connection, last)
    old = open_checkpoint(note or b"", signer.verifier, signer.name)
    if old.size > head.size:
        raise AuditCorruptError(f"a head over {old.size} entries was signed, the log has {head.size}: rolled back")
    try:
        proof = consistency(connection, old.size, head.size)
        verify_consistency(old.size, old.root, head.size, head.root, proof)
    except EvidenceError as error:
        raise AuditCorruptError(f"the log does not extend the head signed at {old.size} entries: {error}") from error


def _check_last_leaf(connection: Connection, head: Checkpoint) -> None:
    """Recompute the newest leaf from the stored bytes: a flipped bit on disk must not be signed."""
    if head.size == 0:
        return
    last = head.size - 1
    body = connection.execute(select(audit_entry.c.body).where(audit_entry.c.seq == last)).scalar_one_or_none()
    query = select(audit_node.c.hash).where(audit_node.c.level == 0, audit_node.c.idx == last)
    if body is None or leaf_hash(body) != connection.execute(query).scalar_one_or_none():
        raise AuditCorruptError(f"entry {last} does not have the hash that the tree holds: run cloister-audit fsck")


def _store(engine: Engine, size: int, note: bytes, now: int) -> None:
    try:
        with engine.begin() as connection:
            connection.execute(insert(audit_checkpoint).values(size=size, note=note, signed_at=now))
    except IntegrityError:
        # Another call signed the same head at the same time; Ed25519 is deterministic, so the notes are equal.
        return
