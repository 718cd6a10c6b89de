# SPDX-License-Identifier: Apache-2.0
"""The fence: whoever writes for a job or release must hold its lease, by attempt and by the database's clock.

Every write of a worker calls one of these in its own transaction, with the row locked: between the check and the
commit nobody else can be given the work.
"""

from __future__ import annotations

from sqlalchemy import Connection, exists, or_, select

from cloister_server.database import tables
from cloister_server.database.engine import now_ms
from cloister_server.database.rows import JobRow, ReleaseRow, one
from cloister_server.errors import LeaseLostError
from cloister_server.queue.states import LEASED, RELEASE_LEASED

_JOB = tables.job
_RELEASE = tables.release
_INPUT = tables.job_input


def held_job(connection: Connection, job_id: str, host: str, attempt: int) -> JobRow:
    """The job, locked, if this host holds this attempt's lease.  Raises LeaseLostError."""
    query = select(_JOB).where(
        _JOB.c.id == job_id,
        _JOB.c.worker == host,
        _JOB.c.attempt == attempt,
        _JOB.c.state.in_(LEASED),
        _JOB.c.lease_until > now_ms(connection),
    )
    row = one(connection, query.with_for_update(), JobRow)
    if row is None:
        raise _lost(attempt)
    return row


def held_release(connection: Connection, release_id: str, host: str, attempt: int) -> ReleaseRow:
    """The same for a release."""
    query = select(_RELEASE).where(
        _RELEASE.c.id == release_id,
        _RELEASE.c.worker == host,
        _RELEASE.c.attempt == attempt,
        _RELEASE.c.state == RELEASE_LEASED,
        _RELEASE.c.lease_until > now_ms(connection),
    )
    row = one(connection, query.with_for_update(), ReleaseRow)
    if row is None:
        raise _lost(attempt)
    return row


def is_release(connection: Connection, work_id: str) -> bool:
    """Whether a work id is a release's; an unknown one counts as a job's."""
    return connection.execute(select(_RELEASE.c.id).where(_RELEASE.c.id == work_id)).first() is not None


def lease_covers(connection: Connection, host: str, object_id: str) -> bool:
    """Whether a lease that this host holds now grants it an object."""
    granted = exists(select(1).where(_INPUT.c.job_id == _JOB.c.id, _INPUT.c.object_id == object_id))
    query = select(_JOB.c.id).where(
        _JOB.c.worker == host,
        _JOB.c.state.in_(LEASED),
        _JOB.c.lease_until > now_ms(connection),
        or_(granted, _JOB.c.resume_object_id == object_id),
    )
    return connection.execute(query.limit(1)).first() is not None


def _lost(attempt: int) -> LeaseLostError:
    return LeaseLostError(f"attempt {attempt} does not hold the lease any more; stop the trainer and write nothing")
