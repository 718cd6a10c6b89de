# SPDX-License-Identifier: Apache-2.0
"""What a team may have at once: limits that an admin sets, and what is used of them.

Waiting jobs, GPU time of the last day and stored bytes are refused at the door, with the figure and who can raise it.
Running jobs are no refusal: a team at that limit waits while others go first.  Results and checkpoints count as stored
bytes but are never refused, because that would end a job that was let in.  The team's row is locked before anything is
counted, so that two calls at once cannot both take the last place.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, case, exists, func, insert, select, update

from cloister.api.v1 import operations_pb2
from cloister.evidence.canonical import JSON
from cloister.evidence.entry import Subject
from cloister.evidence.roster import Roster
from cloister_server.calls import ADMIN, Call
from cloister_server.database import tables
from cloister_server.database.engine import now_ms
from cloister_server.database.rows import one
from cloister_server.database.unit_of_work import Transaction
from cloister_server.errors import InvalidFieldError, NotFoundError, QuotaExceededError
from cloister_server.queue.states import LEASED, WAITING

WINDOW_MS = 24 * 3600 * 1000
FIELDS = ("queued_jobs", "running_jobs", "stored_bytes", "gpu_seconds")
_WORDS = {
    "queued_jobs": "waiting jobs",
    "stored_bytes": "stored bytes",
    "gpu_seconds": "GPU-seconds in a day",
}
_LARGEST = 1 << 62
_QUOTA = tables.team_quota
_JOB = tables.job


@dataclass(frozen=True, kw_only=True)
class QuotaRow:
    """Limits of a team; None for none."""

    team: str
    queued_jobs: int | None = None
    running_jobs: int | None = None
    stored_bytes: int | None = None
    gpu_seconds: int | None = None


def check_submit(tx: Transaction, team: str) -> None:
    """Room for one more waiting job, and GPU time left.  Raises QuotaExceededError."""
    quota = _locked(tx.connection, team)
    if quota.queued_jobs is not None:
        _check("queued_jobs", team, quota.queued_jobs, _count(tx.connection, team, WAITING), 1)
    if quota.gpu_seconds is not None:
        _check("gpu_seconds", team, quota.gpu_seconds, _gpu_seconds(tx.connection, team), 1)


def check_store(tx: Transaction, team: str, size: int) -> None:
    """Room for so many bytes more.  Raises QuotaExceededError."""
    quota = _locked(tx.connection, team)
    if quota.stored_bytes is not None:
        _check("stored_bytes", team, quota.stored_bytes, _stored(tx.connection, team), size)


def may_run(connection: Connection, team: str) -> bool:
    """Whether one more job of a team may run; exact until the transaction ends."""
    limit = _locked(connection, team).running_jobs
    return limit is None or _count(connection, team, LEASED) < limit


def at_running_limit() -> ColumnElement[bool]:
    """For a query of jobs: the job's team runs as many as it may."""
    running = _JOB.alias()
    count = (
        select(func.count()).select_from(running).where(running.c.team == _QUOTA.c.team, running.c.state.in_(LEASED))
    )
    return exists(
        select(1).where(_QUOTA.c.team == _JOB.c.team, _QUOTA.c.running_jobs <= count.scalar_subquery()).correlate(_JOB)
    )


def teams_at_running_limit(connection: Connection) -> frozenset[str]:
    """Every team that runs as many jobs as it may, in one query."""
    running = (
        select(_JOB.c.team, func.count().label("jobs"))
        .where(_JOB.c.lease_until > 0, _JOB.c.state.in_(LEASED))
        .group_by(_JOB.c.team)
        .subquery()
    )
    query = (
        select(_QUOTA.c.team)
        .outerjoin(running, running.c.team == _QUOTA.c.team)
        .where(_QUOTA.c.running_jobs <= func.coalesce(running.c.jobs, 0))
    )
    return frozenset(connection.execute(query).scalars())


def set_limits(
    tx: Transaction, call: Call, roster: Roster, request: operations_pb2.SetQuotaRequest
) -> operations_pb2.TeamUsage:
    """Replace a team's limits.  Raises NotFoundError, InvalidFieldError."""
    call.about("team", request.team)
    if request.team not in {team.id for team in roster.teams}:
        raise NotFoundError("team")
    given = {field.name: int(value) for field, value in request.limits.ListFields()}
    limits = {name: given.get(name) for name in FIELDS}
    for name, limit in limits.items():
        if limit is not None and not 0 <= limit <= _LARGEST:
            raise InvalidFieldError(f"limits.{name}", f"{limit} is not a number from 0 on")
    if tx.connection.execute(update(_QUOTA).where(_QUOTA.c.team == request.team).values(limits)).rowcount == 0:
        tx.connection.execute(insert(_QUOTA).values(team=request.team, **limits))
    detail: dict[str, JSON] = {name: str(limit) for name, limit in limits.items() if limit is not None}
    tx.record(call.event("quota.set", Subject("team", request.team), detail=detail))
    return usage(tx.connection, request.team)


def list_usage(tx: Transaction, call: Call, roster: Roster) -> list[operations_pb2.TeamUsage]:
    """Every team for an admin, the caller's own for a member."""
    everybody = sorted(team.id for team in roster.teams)
    teams = everybody if ADMIN in call.principal.roles else [call.principal.team]
    tx.record(call.event("quota.list", Subject("team", "" if ADMIN in call.principal.roles else call.principal.team)))
    return [usage(tx.connection, team) for team in teams]


def usage(connection: Connection, team: str) -> operations_pb2.TeamUsage:
    """Limits and what is used of them."""
    row = one(connection, select(_QUOTA).where(_QUOTA.c.team == team), QuotaRow) or QuotaRow(team=team)
    limits = {name: value for name in FIELDS if (value := getattr(row, name)) is not None}
    used = operations_pb2.Quota(
        queued_jobs=_count(connection, team, WAITING),
        running_jobs=_count(connection, team, LEASED),
        stored_bytes=_stored(connection, team),
        gpu_seconds=_gpu_seconds(connection, team),
    )
    return operations_pb2.TeamUsage(team=team, limits=operations_pb2.Quota(**limits), used=used)


def _locked(connection: Connection, team: str) -> QuotaRow:
    found = one(connection, select(_QUOTA).where(_QUOTA.c.team == team).with_for_update(), QuotaRow)
    return found or QuotaRow(team=team)


def _check(name: str, team: str, limit: int, used: int, more: int) -> None:
    if used + more > limit:
        raise QuotaExceededError(
            f"team {team} may have {limit} {_WORDS[name]}, has {used} and asks for {more} more; "
            "an administrator of the site can raise it",
            quota=name,
            limit=str(limit),
            used=str(used),
        )


def _count(connection: Connection, team: str, states: tuple[str, ...]) -> int:
    query = select(func.count()).select_from(_JOB).where(_JOB.c.team == team, _JOB.c.state.in_(states))
    return int(connection.execute(query).scalar_one())


def _stored(connection: Connection, team: str) -> int:
    row = tables.sealed_object.c
    query = select(func.coalesce(func.sum(row.size), 0)).where(row.team == team, row.state != "DELETED")
    return int(connection.execute(query).scalar_one())


def _gpu_seconds(connection: Connection, team: str) -> int:
    """Lease time of the last day, times the GPUs that the host said it has, one at least."""
    attempt, host, now = tables.job_attempt.c, tables.worker_host, now_ms(connection)
    until = case((attempt.ended_at > 0, attempt.ended_at), else_=now)
    gpus = case((host.c.gpus > 1, host.c.gpus), else_=1)
    query = (
        select(func.coalesce(func.sum((until - attempt.leased_at) * gpus), 0))
        .select_from(tables.job_attempt.outerjoin(host, host.c.host == attempt.worker))
        .where(attempt.team == team, attempt.leased_at > now - WINDOW_MS)
    )
    return int(connection.execute(query).scalar_one()) // 1000
