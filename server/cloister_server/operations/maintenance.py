# SPDX-License-Identifier: Apache-2.0
"""Maintenance: nothing new is taken, what runs goes on.

The row of the table is the switch, so that every control plane of the site obeys it.  It does not end by itself: the
time is what people are told, and only an admin knows when the work is done.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, delete, func, insert, select

from cloister.api.v1 import operations_pb2
from cloister.evidence.entry import Subject
from cloister_server.calls import Call
from cloister_server.database import tables
from cloister_server.database.engine import now_ms
from cloister_server.database.rows import one
from cloister_server.database.unit_of_work import Transaction
from cloister_server.errors import InvalidFieldError, MaintenanceError
from cloister_server.queue.states import LEASED, RELEASE_LEASED

MAX_REASON = 200
_TABLE = tables.maintenance


@dataclass(frozen=True, kw_only=True)
class MaintenanceRow:
    """That there is maintenance."""

    id: int
    reason: str
    since: int
    until_s: int
    by_person: str

    def message(self) -> operations_pb2.Maintenance:
        found = operations_pb2.Maintenance(reason=self.reason, by=self.by_person)
        found.since.FromMilliseconds(self.since)
        if self.until_s:
            found.until.FromSeconds(self.until_s)
        return found


def find(connection: Connection) -> MaintenanceRow | None:
    """What is in force, or None."""
    return one(connection, select(_TABLE), MaintenanceRow)


def check_open(connection: Connection) -> None:
    """Called before anything new is taken.  Raises MaintenanceError."""
    row = find(connection)
    if row is not None:
        raise MaintenanceError(f"the site is under maintenance: {row.reason}", until=str(row.until_s or ""))


def begin(
    tx: Transaction, call: Call, site: str, request: operations_pb2.BeginMaintenanceRequest
) -> operations_pb2.BeginMaintenanceResponse:
    """Begin, or change reason and end.  Raises InvalidFieldError."""
    reason = request.reason
    if not 1 <= len(reason) <= MAX_REASON or not reason.isprintable() or reason != reason.strip():
        raise InvalidFieldError("reason", f"use 1 to {MAX_REASON} printable characters, without spaces at the ends")
    until = request.until.seconds if request.HasField("until") else 0
    if not 0 <= until < 1 << 40:
        raise InvalidFieldError("until", "is not a time after 1970")
    before = find(tx.connection)
    since = now_ms(tx.connection) if before is None else before.since
    tx.connection.execute(delete(_TABLE))
    values = {"id": 1, "reason": reason, "since": since, "until_s": until, "by_person": call.principal.id}
    tx.connection.execute(insert(_TABLE).values(values))
    # The reason stays out of the log: it is free text, and the log holds fixed words.
    tx.record(call.event("maintenance.begin", Subject("site", site), detail={"until": until}))
    row = find(tx.connection)
    message = None if row is None else row.message()
    return operations_pb2.BeginMaintenanceResponse(maintenance=message, running=_running(tx.connection))


def end(tx: Transaction, call: Call, site: str) -> None:
    """End it; nothing happens where there is none."""
    if find(tx.connection) is None:
        return
    tx.connection.execute(delete(_TABLE))
    tx.record(call.event("maintenance.end", Subject("site", site)))


def _running(connection: Connection) -> int:
    jobs = select(func.count()).select_from(tables.job).where(tables.job.c.state.in_(LEASED))
    releases = select(func.count()).select_from(tables.release).where(tables.release.c.state == RELEASE_LEASED)
    return sum(int(connection.execute(query).scalar_one()) for query in (jobs, releases))
