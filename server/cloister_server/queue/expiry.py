# SPDX-License-Identifier: Apache-2.0
"""Leases that ran out, and jobs that waited or were paused too long.

A lost worker is an infrastructure fault: the job waits again, with the next attempt number, until its attempts
are used up.  Whatever the lost worker still writes is refused by the fence.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Select, select, update

from cloister.evidence.canonical import JSON
from cloister.evidence.entry import Event, Subject
from cloister_server.calls import SYSTEM
from cloister_server.database import tables
from cloister_server.database.engine import now_ms
from cloister_server.database.rows import JobRow, ReleaseRow, several
from cloister_server.database.unit_of_work import Transaction
from cloister_server.queue import endings
from cloister_server.queue.states import (
    CANCELLED,
    EXPIRED,
    FAILED,
    LEASED,
    LOST,
    PAUSED,
    PAUSING,
    QUEUED,
    REFUSED,
    RELEASE_LEASED,
    WAITING,
)

MAX_RELEASE_ATTEMPTS = 5
WORKER_LOST = "worker_lost"

_JOB = tables.job
_RELEASE = tables.release


def sweep(tx: Transaction) -> int:
    """End every lease that ran out and every job that waits past its authorisation; how many there were."""
    now = now_ms(tx.connection)
    jobs = _jobs(tx, select(_JOB).where(_JOB.c.state.in_(LEASED), _JOB.c.lease_until <= now))
    for job in jobs:
        lose_job(tx, job)
    releases = _releases(tx, select(_RELEASE).where(_RELEASE.c.state == RELEASE_LEASED, _RELEASE.c.lease_until <= now))
    for release in releases:
        lose_release(tx, release)
    expired = _jobs(tx, select(_JOB).where(_JOB.c.state.in_((*WAITING, PAUSED)), _JOB.c.expires_at_s * 1000 <= now))
    for job in expired:
        did = "paused until" if job.state == PAUSED else "not started before"
        endings.end_job(tx, job, EXPIRED, f"{did} its authorisation expired")
        tx.record(_event("job.end", "job", job.id, "failed", {"state": EXPIRED, "attempt": job.attempt}))
    return len(jobs) + len(releases) + len(expired)


def take_back(tx: Transaction, host: str) -> None:
    """End every lease that a host still holds: it asks for work, so it lost them."""
    for job in _jobs(tx, select(_JOB).where(_JOB.c.worker == host, _JOB.c.state.in_(LEASED))):
        lose_job(tx, job)
    held = select(_RELEASE).where(_RELEASE.c.worker == host, _RELEASE.c.state == RELEASE_LEASED)
    for release in _releases(tx, held):
        lose_release(tx, release)


def lose_job(tx: Transaction, job: JobRow) -> None:
    """The attempt is over without a word from its worker."""
    detail: dict[str, JSON] = {"attempt": job.attempt, "worker": job.worker}
    tx.record(_event("job.lease.lost", "job", job.id, "failed", detail))
    endings.end_attempt(tx.connection, job, LOST)
    if job.cancel_requested:
        endings.end_job(tx, job, CANCELLED, "cancelled by the team")
        tx.record(_event("job.end", "job", job.id, "ok", {"state": CANCELLED, "attempt": job.attempt}))
    elif job.attempt >= job.max_attempts:
        message = f"the worker was lost in each of {job.max_attempts} attempts; ask the site's administrator"
        endings.end_job(tx, job, FAILED, "worker lost", (WORKER_LOST, message, ""))
        tx.record(_event("job.end", "job", job.id, "failed", {"state": FAILED, "attempt": job.attempt}))
    elif job.state == PAUSING:
        endings.pause_job(tx.connection, job)
        tx.record(_event("job.attempt.end", "job", job.id, "failed", detail))
    else:
        endings.requeue_job(tx.connection, job, "worker lost; waiting again")
        tx.record(_event("job.attempt.end", "job", job.id, "failed", detail))


def lose_release(tx: Transaction, release: ReleaseRow) -> None:
    """The same for a release; after several lost workers it is refused."""
    detail: dict[str, JSON] = {"attempt": release.attempt, "worker": release.worker}
    tx.record(_event("job.lease.lost", "release", release.id, "failed", detail))
    last = release.attempt >= MAX_RELEASE_ATTEMPTS
    values = {"state": REFUSED, "refusal": "WORKER_LOST"} if last else {"state": QUEUED}
    tx.connection.execute(update(_RELEASE).where(_RELEASE.c.id == release.id).values(lease_until=0, **values))
    if last:
        tx.record(_event("release.end", "release", release.id, "failed", {"attempt": release.attempt}))


def _event(action: str, kind: str, identifier: str, outcome: str, detail: dict[str, JSON]) -> Event:
    reason = "LEASE_LOST" if action in ("job.lease.lost", "job.attempt.end") else ""
    return Event(action, SYSTEM, Subject(kind, identifier), outcome=outcome, reason=reason, detail=detail)


# Whole rows of one table; SQLAlchemy's type for them is Any.
def _jobs(tx: Transaction, query: Select[Any]) -> list[JobRow]:
    return several(tx.connection, query.order_by(_JOB.c.id).with_for_update(skip_locked=True), JobRow)


def _releases(tx: Transaction, query: Select[Any]) -> list[ReleaseRow]:
    return several(tx.connection, query.order_by(_RELEASE.c.id).with_for_update(skip_locked=True), ReleaseRow)
