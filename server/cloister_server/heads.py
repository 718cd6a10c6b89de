# SPDX-License-Identifier: Apache-2.0
"""Signed heads of the log and proofs in them.

A head is signed over committed entries only (`cloister_audit.checkpoints`), so callers commit their entry first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy.exc import SQLAlchemyError

from cloister.evidence.checkpoint import Checkpoint
from cloister.evidence.note import NoteSigner
from cloister_audit import checkpoints, proofs, query
from cloister_audit.errors import AuditError
from cloister_audit.ledger import Ledger
from cloister_server.database.unit_of_work import UnitOfWork
from cloister_server.errors import AuditUnavailableError, LogBehindCallerError, NotFoundError


@dataclass(frozen=True)
class Proved:
    """An entry with its inclusion proof in a signed head."""

    entry: bytes
    inclusion: list[bytes]
    note: bytes
    consistency: list[bytes]


class Heads:
    """Signs and proves."""

    def __init__(self, unit_of_work: UnitOfWork, ledger: Ledger, signer: NoteSigner, micros: Callable[[], int]) -> None:
        self._unit_of_work = unit_of_work
        self._ledger = ledger
        self._signer = signer
        self._micros = micros

    def latest(self) -> tuple[Checkpoint, bytes]:
        """The newest head and its note.  Raises AuditUnavailableError."""
        engine = self._unit_of_work.database.writer
        try:
            return checkpoints.latest(engine, self._ledger, self._signer, self._micros())
        except (AuditError, SQLAlchemyError) as error:
            raise AuditUnavailableError("the log's head cannot be signed; tell the site's administrator") from error

    def consistent(self, since_size: int) -> tuple[bytes, list[bytes]]:
        """The newest note and the proof that it extends `since_size` entries.

        Raises LogBehindCallerError, AuditUnavailableError.
        """
        head, note = self.latest()
        return note, self._consistency(since_size, head)

    def proved(self, index: int, since_size: int = 0) -> Proved:
        """One entry, proved.  Raises NotFoundError, LogBehindCallerError, AuditUnavailableError."""
        head, note = self.latest()
        if not 0 <= index < head.size:
            raise NotFoundError("entry")
        consistency = self._consistency(since_size, head)
        body = self._unit_of_work.read(lambda connection: query.body(connection, index))
        if body is None:
            raise AuditUnavailableError(f"entry {index} of the log is missing; tell the site's administrator")
        inclusion = self._unit_of_work.read(lambda connection: proofs.inclusion(connection, index, head.size))
        return Proved(body, inclusion, note, consistency)

    def _consistency(self, since_size: int, head: Checkpoint) -> list[bytes]:
        if since_size > head.size:
            raise LogBehindCallerError(
                f"you keep a checkpoint of {since_size} entries, this log has {head.size}: it was rolled back or forked"
            )
        if since_size <= 0:
            return []
        return self._unit_of_work.read(lambda connection: proofs.consistency(connection, since_size, head.size))
