# SPDX-License-Identifier: Apache-2.0
"""Worker hosts as their admin sees them: what they said of themselves, and whether they take work.

The roster says who is certified, and only the root changes that.  A mode is the site's own: it keeps a certified
host from work for a while, and gives no host what the roster does not give it.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, insert, select, update

from cloister.api.v1 import operations_pb2, workers_pb2
from cloister.evidence.entry import Subject
from cloister.evidence.roster import Host, Roster
from cloister_server.calls import Call
from cloister_server.database import tables
from cloister_server.database.engine import now_ms
from cloister_server.database.rows import one
from cloister_server.database.unit_of_work import Transaction
from cloister_server.errors import InvalidFieldError, NotFoundError
from cloister_server.operations import maintenance
from cloister_server.queue.states import LEASED, RELEASE_LEASED

ACTIVE, CORDONED, DRAINING = "ACTIVE", "CORDONED", "DRAINING"
_ACTIONS = {ACTIVE: "worker.uncordon", CORDONED: "worker.cordon", DRAINING: "worker.drain"}
LATELY_MS = 180_000
"""A host that works asks for work at least once a minute, or keeps a lease."""
_TABLE = tables.worker_host


@dataclass(frozen=True, kw_only=True)
class WorkerRow:
    """One host; times are milliseconds since 1970 by the database's clock, 0 for never."""

    host: str
    mode: str
    last_seen: int
    gpus: int
    sandboxed: bool | None
    version: str
    pool: str | None


def mode_of(connection: Connection, host: str) -> str:
    """ACTIVE where nobody has said otherwise."""
    found = connection.execute(select(_TABLE.c.mode).where(_TABLE.c.host == host)).scalar_one_or_none()
    return ACTIVE if found is None else str(found)


def takes_work(connection: Connection, host: str) -> bool:
    """Whether a host may be given a new lease now."""
    return mode_of(connection, host) == ACTIVE and maintenance.find(connection) is None


def taking_work(connection: Connection, pool: str) -> list[str]:
    """Hosts of a pool that would take the next job: not cordoned or drained, and heard of lately."""
    lately = _TABLE.c.last_seen > now_ms(connection) - LATELY_MS
    query = select(_TABLE.c.host).where(_TABLE.c.pool == pool, _TABLE.c.mode == ACTIVE, lately)
    return list(connection.execute(query.order_by(_TABLE.c.host)).scalars())


def note(tx: Transaction, call: Call, request: workers_pb2.LeaseWorkRequest) -> None:
    """Remember what a host says of itself when it asks for work.  It leaves no entry, as a heartbeat leaves none."""
    values = {
        "last_seen": now_ms(tx.connection),
        "gpus": min(max(request.gpus, 0), 1 << 16),
        "sandboxed": request.sandboxed if request.HasField("sandboxed") else None,
        "pool": call.principal.pool,
        "version": "".join(c for c in request.worker_version[:32] if c.isprintable()),
    }
    _write(tx, call.principal.id, values)


def seen(tx: Transaction, host: str) -> None:
    """A host kept a lease."""
    tx.connection.execute(update(_TABLE).where(_TABLE.c.host == host).values(last_seen=now_ms(tx.connection)))


def set_mode(
    tx: Transaction, call: Call, roster: Roster, request: operations_pb2.SetWorkerModeRequest, now: int
) -> operations_pb2.Worker:
    """Say whether a host takes work.  Raises NotFoundError, InvalidFieldError."""
    call.about("host", request.host)
    host = next((item for item in _certified(roster, now) if item.id == request.host), None)
    if host is None:
        raise NotFoundError("host")
    modes = {
        operations_pb2.WORKER_MODE_ACTIVE: ACTIVE,
        operations_pb2.WORKER_MODE_CORDONED: CORDONED,
        operations_pb2.WORKER_MODE_DRAINING: DRAINING,
    }
    if request.mode not in modes:
        raise InvalidFieldError("mode", "name ACTIVE, CORDONED or DRAINING")
    mode = modes[request.mode]
    if mode_of(tx.connection, host.id) != mode:
        _write(tx, host.id, {"mode": mode})
        tx.record(call.event(_ACTIONS[mode], Subject("host", host.id)))
    return _message(tx.connection, host)


def inventory(connection: Connection, roster: Roster, now: int) -> list[operations_pb2.Worker]:
    """Every certified host."""
    return [_message(connection, host) for host in _certified(roster, now)]


def _certified(roster: Roster, now: int) -> list[Host]:
    hosts = [host for host in roster.hosts if host.retired_at is None or now < host.retired_at]
    return sorted(hosts, key=lambda host: (host.pool, host.id))


def _write(tx: Transaction, host: str, values: dict[str, object]) -> None:
    done = tx.connection.execute(update(_TABLE).where(_TABLE.c.host == host).values(values))
    if done.rowcount == 0:
        # Two calls of a new host can meet here: the second one's unit of work runs again and finds the row.
        fresh = {"host": host, "mode": ACTIVE, "last_seen": 0, "gpus": 0, "sandboxed": None, "version": ""}
        tx.connection.execute(insert(_TABLE).values({**fresh, **values}))


def _message(connection: Connection, host: Host) -> operations_pb2.Worker:
    row = one(connection, select(_TABLE).where(_TABLE.c.host == host.id), WorkerRow)
    mode = ACTIVE if row is None else row.mode
    found = operations_pb2.Worker(
        host=host.id, pool=host.pool, mode=operations_pb2.WorkerMode.Value(f"WORKER_MODE_{mode}")
    )
    if row is not None:
        found.gpus, found.version = row.gpus, row.version
        if row.last_seen:
            found.last_seen.FromMilliseconds(row.last_seen)
        if row.sandboxed is not None:
            found.sandboxed = row.sandboxed
    found.work_id, found.attempt = _held(connection, host.id)
    return found


def _held(connection: Connection, host: str) -> tuple[str, int]:
    job, release = tables.job.c, tables.release.c
    for query in (
        select(job.id, job.attempt).where(job.worker == host, job.state.in_(LEASED)),
        select(release.id, release.attempt).where(release.worker == host, release.state == RELEASE_LEASED),
    ):
        for row in connection.execute(query):
            return str(row.id), int(row.attempt)
    return "", 0
