# SPDX-License-Identifier: Apache-2.0
"""The log of a database that was brought back: verified, its head signed, and what happened written into it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import func, select

from cloister.evidence.checkpoint import Checkpoint, open_checkpoint
from cloister.evidence.entry import Event, Subject
from cloister.evidence.errors import EvidenceError
from cloister.evidence.merkle import verify_consistency
from cloister.evidence.note import NoteSigner, NoteVerifier
from cloister_audit import checkpoints, fsck, proofs
from cloister_audit.errors import AuditError
from cloister_audit.ledger import Head, Ledger
from cloister_server.calls import SYSTEM
from cloister_server.database import tables
from cloister_server.database.engine import Database
from cloister_server.database.unit_of_work import UnitOfWork
from cloister_server.errors import BackupError
from cloister_server.queue.states import ENDED
from cloister_server.registry.objects import READY
from cloister_server.store import Declared, Store


@dataclass(frozen=True)
class LogTools:
    """What it takes to go on with a log."""

    ledger: Ledger
    signer: NoteSigner
    micros: Callable[[], int]
    """Microseconds since 1970, UTC."""


@dataclass(frozen=True)
class Recovered:
    """A database that was recovered by its own means, judged."""

    log_size: int
    head: bytes
    """Signed note over these entries: where the log goes on."""
    open_jobs: int
    missing: tuple[str, ...]
    """Ids of objects that the database calls complete and whose blob the store lacks."""


def read_not_before(note: bytes | None, verifier: NoteVerifier) -> Checkpoint | None:
    """The checkpoint that the operator brings.  Raises BackupError."""
    try:
        return None if note is None else open_checkpoint(note, verifier, verifier.name)
    except EvidenceError as error:
        raise BackupError(f"--not-before: not a checkpoint of this site's log: {error}") from error


def check_log(database: Database, ledger: Ledger, verifier: NoteVerifier, wanted: Checkpoint | None) -> Head:
    """Recompute the log from its entries and hold it against a checkpoint; its head.  Raises BackupError."""
    try:
        with database.reader.connect() as connection:
            fsck.check(connection, verifier)
            head = ledger.head(connection)
            if wanted is not None and wanted.size > head.size:
                raise BackupError(f"the log has {head.size} entries, your checkpoint covers {wanted.size}")
            if wanted is not None:
                proof = proofs.consistency(connection, wanted.size, head.size)
                verify_consistency(wanted.size, wanted.root, head.size, head.root, proof)
            return head
    except (AuditError, EvidenceError) as error:
        raise BackupError(f"the log of the restored database does not verify: {error}") from error


def begin_again(database: Database, log: LogTools, head: Head, subject: Subject) -> bytes:
    """Sign the head at which the log goes on, then log what happened: every later entry lies on this branch."""
    _, note = checkpoints.latest(database.writer, log.ledger, log.signer, log.micros())
    event = Event("site.restore", SYSTEM, subject, detail={"log_size": head.size, "log_root": head.root.hex()})
    UnitOfWork(database, log.ledger).run("site.restore", lambda tx: tx.record(event))
    return note


def open_jobs(database: Database) -> int:
    """How many jobs wait or run."""
    query = select(func.count()).select_from(tables.job).where(tables.job.c.state.not_in(ENDED))
    with database.reader.connect() as connection:
        return int(connection.execute(query).scalar_one())


def recovered(
    database: Database, store: Store, log: LogTools, verifier: NoteVerifier, not_before: bytes | None
) -> Recovered:
    """Go on with a database that was recovered to a point in time; it must not be served yet.

    Raises BackupError, ServerError, and writes nothing where the log does not verify.
    """
    head = check_log(database, log.ledger, verifier, read_not_before(not_before, verifier))
    missing = _missing(database, store)
    note = begin_again(database, log, head, Subject("log", verifier.name))
    return Recovered(head.size, note, open_jobs(database), missing)


def _missing(database: Database, store: Store) -> tuple[str, ...]:
    row = tables.sealed_object.c
    query = select(row.id, row.ciphertext_sha256, row.size).where(row.state == READY).order_by(row.id)
    with database.reader.connect() as connection:
        ready = [Declared(found.id, found.ciphertext_sha256, found.size) for found in connection.execute(query)]
    return tuple(blob.object_id for blob in ready if not store.is_complete(blob))
