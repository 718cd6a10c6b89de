# SPDX-License-Identifier: Apache-2.0
"""Keeping a lease, and telling its holder what to do.  Heartbeats leave no entry; losing a lease does."""

from __future__ import annotations

from sqlalchemy import update

from cloister.api.v1 import workers_pb2
from cloister_server.calls import Call
from cloister_server.database import tables
from cloister_server.database.engine import now_ms
from cloister_server.database.unit_of_work import Transaction
from cloister_server.operations import workers
from cloister_server.queue.fence import held_job, held_release, is_release
from cloister_server.queue.states import PAUSING

_JOB = tables.job
_RELEASE = tables.release


def keep(
    tx: Transaction, call: Call, work_id: str, attempt: int, lease_seconds: int
) -> workers_pb2.Directive.ValueType:
    """Prolong the lease.  Raises LeaseLostError."""
    until = now_ms(tx.connection) + lease_seconds * 1000
    go_on = _go_on(tx, call.principal.id)
    if is_release(tx.connection, work_id):
        call.about("release", work_id)
        release = held_release(tx.connection, work_id, call.principal.id, attempt)
        tx.connection.execute(update(_RELEASE).where(_RELEASE.c.id == release.id).values(lease_until=until))
        return go_on
    call.about("job", work_id)
    job = held_job(tx.connection, work_id, call.principal.id, attempt)
    tx.connection.execute(update(_JOB).where(_JOB.c.id == job.id).values(lease_until=until))
    if job.cancel_requested:
        return workers_pb2.DIRECTIVE_CANCEL
    return workers_pb2.DIRECTIVE_PAUSE if job.state == PAUSING else go_on


def _go_on(tx: Transaction, host: str) -> workers_pb2.Directive.ValueType:
    """Work on, or work on and then take nothing more."""
    workers.seen(tx, host)
    draining = workers.mode_of(tx.connection, host) == workers.DRAINING
    return workers_pb2.DIRECTIVE_DRAIN if draining else workers_pb2.DIRECTIVE_CONTINUE
