# SPDX-License-Identifier: Apache-2.0
"""Giving work to hosts: one piece at a time, each grant with a new attempt number (the fencing token).

A host that asks for work holds none: what it still held is taken back first, so an agent that was killed does
not wait for its own lease to run out.  A release goes before a job, because it takes a moment.
"""

from __future__ import annotations

from sqlalchemy import ColumnElement, Connection, case, exists, insert, select, update

from cloister.evidence.canonical import JSON
from cloister.evidence.entry import Subject
from cloister.evidence.roster import Roster
from cloister_server.calls import Call
from cloister_server.database import tables
from cloister_server.database.engine import now_ms
from cloister_server.database.rows import JobRow, ReleaseRow, one
from cloister_server.database.unit_of_work import Transaction
from cloister_server.operations import quotas, workers
from cloister_server.queue import checkpoints, events, expiry, order, views
from cloister_server.queue.states import LEASED, QUEUED, RELEASE_LEASED, VALIDATING, WAITING
from cloister_server.recipients import host_key_id

_JOB = tables.job
_RELEASE = tables.release
_GRANT = tables.object_grant
_VERSION = tables.model_version


def work_may_wait(connection: Connection, host: str, pool: str) -> bool:
    """A cheap look before a lease is tried: is there work, a lease that ran out, or one of this host's own?"""
    now = now_ms(connection)
    jobs = exists(select(1).where(_JOB.c.pool == pool, _JOB.c.state.in_(WAITING)))
    releases = exists(select(1).where(_RELEASE.c.pool == pool, _RELEASE.c.state == QUEUED))
    stale_jobs = exists(
        select(1).where(_JOB.c.state.in_(LEASED), (_JOB.c.lease_until <= now) | (_JOB.c.worker == host))
    )
    stale_releases = exists(
        select(1).where(
            _RELEASE.c.state == RELEASE_LEASED, (_RELEASE.c.lease_until <= now) | (_RELEASE.c.worker == host)
        )
    )
    return bool(connection.execute(select(jobs | releases | stale_jobs | stale_releases)).scalar_one())


def take(tx: Transaction, call: Call, roster: Roster, lease_seconds: int) -> JobRow | ReleaseRow | None:
    """Lease the next piece of work to the calling host, or None."""
    expiry.take_back(tx, call.principal.id)
    expiry.sweep(tx)
    if not workers.takes_work(tx.connection, call.principal.id):
        return None
    key_id = host_key_id(roster, call.principal.id)
    return _take_release(tx, call, key_id, lease_seconds) or _take_job(tx, call, key_id, lease_seconds)


def _take_job(tx: Transaction, call: Call, key_id: str, lease_seconds: int) -> JobRow | None:
    connection, host = tx.connection, call.principal
    next_one = order.for_host(connection, host.pool, key_id).limit(1).with_for_update(skip_locked=True, of=_JOB)
    job_id = connection.execute(next_one).scalar_one_or_none()
    # Two hosts can pick jobs of one team at once; who comes second finds no place left, and asks again.
    if job_id is None or not quotas.may_run(connection, _team(connection, job_id)):
        return None
    now = now_ms(connection)
    resume = checkpoints.newest(connection, job_id, key_id)
    connection.execute(
        update(_JOB)
        .where(_JOB.c.id == job_id)
        .values(
            state=VALIDATING,
            state_reason="leased",
            attempt=_JOB.c.attempt + 1,
            worker=host.id,
            lease_until=now + lease_seconds * 1000,
            started_at=_or_now(connection),
            resume_object_id=resume,
        )
    )
    row = views.find(connection, job_id)
    if row is None:
        return None
    _open_attempt(connection, row)
    detail: dict[str, JSON] = {"attempt": row.attempt, "resume": resume}
    tx.record(call.event("job.lease", Subject("job", job_id, row.authorisation_sha256), detail=detail))
    return row


def _team(connection: Connection, job_id: str) -> str:
    return str(connection.execute(select(_JOB.c.team).where(_JOB.c.id == job_id)).scalar_one())


def _or_now(connection: Connection) -> ColumnElement[int]:
    return case((_JOB.c.started_at > 0, _JOB.c.started_at), else_=now_ms(connection))


def _open_attempt(connection: Connection, row: JobRow) -> None:
    connection.execute(
        insert(tables.job_attempt).values(
            job_id=row.id,
            attempt=row.attempt,
            team=row.team,
            pool=row.pool,
            worker=row.worker,
            leased_at=now_ms(connection),
            ended_at=0,
            outcome="",
            last_stream_seq=0,
        )
    )
    events.set_step(connection, row.id, "queue", "finished")
    events.add(connection, row.id, "state", VALIDATING, attempt=row.attempt)


def _take_release(tx: Transaction, call: Call, key_id: str, lease_seconds: int) -> ReleaseRow | None:
    connection, host = tx.connection, call.principal
    wrapped = exists(
        select(1)
        .select_from(_VERSION)
        .join(_GRANT, _GRANT.c.object_id == _VERSION.c.object_id)
        .where(_VERSION.c.id == _RELEASE.c.model_version, _GRANT.c.recipient_key_id == key_id)
    )
    query = (
        select(_RELEASE.c.id)
        .where(_RELEASE.c.pool == host.pool, _RELEASE.c.state == QUEUED, wrapped)
        .order_by(_RELEASE.c.created_at, _RELEASE.c.id)
        .limit(1)
    )
    release_id = connection.execute(query.with_for_update(skip_locked=True, of=_RELEASE)).scalar_one_or_none()
    if release_id is None:
        return None
    connection.execute(
        update(_RELEASE)
        .where(_RELEASE.c.id == release_id)
        .values(
            state=RELEASE_LEASED,
            attempt=_RELEASE.c.attempt + 1,
            worker=host.id,
            lease_until=now_ms(connection) + lease_seconds * 1000,
        )
    )
    row = one(connection, select(_RELEASE).where(_RELEASE.c.id == release_id), ReleaseRow)
    if row is not None:
        detail: dict[str, JSON] = {"attempt": row.attempt}
        tx.record(call.event("release.lease", Subject("release", row.id, row.request_sha256), detail=detail))
    return row
