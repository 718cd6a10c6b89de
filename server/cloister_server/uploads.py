# SPDX-License-Identifier: Apache-2.0
"""Ties the store to the register: a blob becomes READY with its entry, or not at all."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import update

from cloister.evidence.entry import Event, Subject
from cloister_server.calls import SYSTEM, Call
from cloister_server.database import tables
from cloister_server.database.rows import ObjectRow
from cloister_server.database.unit_of_work import Transaction, UnitOfWork
from cloister_server.operations import maintenance
from cloister_server.queue import checkpoints
from cloister_server.registry import access, objects
from cloister_server.store import Store

_VERSION = tables.model_version


class Uploads:
    """Progress and end of uploads."""

    def __init__(self, unit_of_work: UnitOfWork, store: Store) -> None:
        self._unit_of_work = unit_of_work
        self._store = store

    def begin(self, call: Call, object_id: str, attempt: int) -> ObjectRow:
        """Raises NotFoundError, LeaseLostError, MaintenanceError, StorageExhaustedError."""
        row = self.check(call, object_id, attempt)
        if row.state == objects.UPLOADING:
            if call.principal.kind == "person":
                # A host's results belong to what runs, and that goes on.
                self._unit_of_work.read(maintenance.check_open)
            self._store.check_room(row.size - self._store.committed(objects.declared(row)))
        return row

    def check(self, call: Call, object_id: str, attempt: int) -> ObjectRow:
        """That the caller may still write; repeated during long uploads."""
        return self._unit_of_work.read(lambda connection: access.writable(connection, call, object_id, attempt))

    def append(self, row: ObjectRow, offset: int, data: bytes, *, sync: bool) -> int:
        if sync:
            self._store.check_room(0)
        return self._store.append(objects.declared(row), offset, data, sync=sync)

    def finish(self, call: Call, row: ObjectRow, attempt: int) -> bool:
        """Verify and record a blob that has arrived in full; False where bytes are missing.

        Raises DigestMismatchError, LeaseLostError.
        """
        declared = objects.declared(row)
        if self._store.committed(declared) < row.size:
            return False
        self.check(call, row.id, attempt)
        self._store.complete(declared)

        def record(tx: Transaction) -> None:
            # Locked first, so that of two calls that end one upload only one records it; and the fence again, in
            # this very transaction: the lease may have been lost meanwhile.
            objects.find_locked(tx.connection, row.id)
            stored = access.writable(tx.connection, call, row.id, attempt)
            self._ready(tx, stored, lambda action, subject: call.event(action, subject, detail={"size": row.size}))

        self._unit_of_work.run("blob.ready", record)
        return True

    def recover(self, row: ObjectRow) -> bool:
        """Record a blob that a crash left complete but unrecorded; False where nobody may have it any more."""

        def record(tx: Transaction) -> bool:
            stored = objects.find_locked(tx.connection, row.id)
            if stored is None:
                return False
            if stored.state != objects.UPLOADING:
                # Another control plane on this database was faster; its job may have ended since, and the blob stays.
                return stored.state == objects.READY
            if not access.still_held(tx.connection, stored):
                return False
            self._ready(tx, stored, lambda action, subject: Event(action, SYSTEM, subject, detail={"recovered": True}))
            return True

        return self._unit_of_work.run("blob.ready", record)

    def _ready(self, tx: Transaction, row: ObjectRow, event: Callable[[str, Subject], Event]) -> None:
        if row.state != objects.UPLOADING:
            return
        objects.set_state(tx.connection, row.id, objects.READY)
        if row.kind == "model":
            tx.connection.execute(update(_VERSION).where(_VERSION.c.object_id == row.id).values(state="READY"))
        kind = access.subject_kind(row)
        tx.record(event(f"{kind}.ready", Subject(kind, row.id, row.ciphertext_sha256)))
        if row.kind == checkpoints.KIND:
            checkpoints.discard_older(tx, row.id)
