# SPDX-License-Identifier: Apache-2.0
"""What one consistent copy of the database holds, read inside the transaction that it was copied by."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from cloister_audit.checkpoints import stored_note
from cloister_audit.ledger import Head, Ledger
from cloister_audit.tables import audit_checkpoint
from cloister_server.database import tables
from cloister_server.errors import BackupError
from cloister_server.migrations.schema import current
from cloister_server.registry.objects import READY
from cloister_server.store import Declared

_OBJECT = tables.sealed_object


@dataclass(frozen=True)
class Contents:
    """The facts that a backup records of its database."""

    schema: str
    head: Head
    checkpoint: bytes
    """Newest signed head that it holds: a note over at most `head.size` entries."""
    blobs: tuple[Declared, ...]
    """What the store must hold for it."""


def read_contents(connection: Connection, ledger: Ledger) -> Contents:
    """Raises BackupError where the log was never signed."""
    newest = connection.execute(select(func.max(audit_checkpoint.c.size))).scalar_one()
    note = None if newest is None else stored_note(connection, newest)
    if note is None:
        raise BackupError("the log has no signed head; start the server once")
    query = select(_OBJECT.c.id, _OBJECT.c.ciphertext_sha256, _OBJECT.c.size).where(_OBJECT.c.state == READY)
    rows = connection.execute(query.order_by(_OBJECT.c.id))
    blobs = tuple(Declared(row.id, row.ciphertext_sha256, row.size) for row in rows)
    return Contents(current(connection) or "", ledger.head(connection), note, blobs)
