# SPDX-License-Identifier: Apache-2.0
"""Pausing a job and going on with it: the team frees a GPU and loses no step.

A waiting job pauses at once.  A running one does when its worker has finished the step and stored a checkpoint, so
only jobs that train can: others have no step to stop at.  Going on takes a new attempt, because the attempt is the
fencing token; a job may therefore be paused as often as its member signed attempts for.
"""

from __future__ import annotations

from sqlalchemy import select, update

from cloister.api.v1 import jobs_pb2, spec_pb2
from cloister.evidence.entry import Subject
from cloister_server.calls import Call
from cloister_server.database import tables
from cloister_server.database.engine import now_ms
from cloister_server.database.rows import JobRow
from cloister_server.database.unit_of_work import Transaction
from cloister_server.errors import NotFoundError, WrongStateError
from cloister_server.queue import endings, events, jobs, views
from cloister_server.queue import spec as specs
from cloister_server.queue.states import PAUSED, PAUSING, QUEUED, RUNNING, WAITING

_JOB = tables.job


def pause(tx: Transaction, call: Call, job_id: str) -> jobs_pb2.Job:
    """Ask for a pause; one that pauses or is paused stays as it is.  Raises NotFoundError, WrongStateError."""
    row = _own(tx, call, job_id)
    if row.state not in (PAUSING, PAUSED):
        _check_can_pause(row)
        tx.record(call.event("job.pause", Subject(jobs.KIND, job_id), detail={"attempt": row.attempt}))
        if row.state in WAITING:
            events.end_open_steps(tx.connection, row.id)
            endings.pause_job(tx.connection, row)
        else:
            _set(tx, row, PAUSING, "a pause was asked for")
    return views.message(tx.connection, jobs.visible(tx.connection, call, job_id))


def resume(tx: Transaction, call: Call, job_id: str) -> jobs_pb2.Job:
    """Let a paused job wait again; one that waits or runs stays as it is.  Raises NotFoundError, WrongStateError."""
    row = _own(tx, call, job_id)
    if row.state == PAUSED:
        _check_can_resume(tx, row)
        tx.record(call.event("job.resume", Subject(jobs.KIND, job_id), detail={"attempt": row.attempt}))
        events.set_step(tx.connection, row.id, "queue", "started")
        _set(tx, row, QUEUED, "waiting to go on")
    elif row.state not in (*WAITING, "VALIDATING", RUNNING):
        raise WrongStateError("only a paused job goes on", state=row.state)
    return views.message(tx.connection, jobs.visible(tx.connection, call, job_id))


def _own(tx: Transaction, call: Call, job_id: str) -> JobRow:
    call.about(jobs.KIND, job_id)
    row = views.find_locked(tx.connection, job_id)
    if row is None or row.team != call.principal.team:
        raise NotFoundError(jobs.KIND)
    return row


def _check_can_pause(row: JobRow) -> None:
    if row.state not in (*WAITING, RUNNING):
        raise WrongStateError("only a waiting or training job can pause; wait, or cancel it", state=row.state)
    if row.state == RUNNING and not _trains(specs.read_spec(row.spec)):
        raise WrongStateError("this job trains nothing and has no step to stop at; cancel it", state=row.state)
    if row.cancel_requested:
        raise WrongStateError("the job is being cancelled", state=row.state)
    if row.state == RUNNING and row.attempt >= row.max_attempts:
        raise WrongStateError("its attempts are used up: it could not go on; sign more max_attempts", state=row.state)


def _check_can_resume(tx: Transaction, row: JobRow) -> None:
    if row.attempt >= row.max_attempts:
        raise WrongStateError("its attempts are used up; clone it with more max_attempts", state=row.state)
    now = tx.connection.execute(select(now_ms(tx.connection))).scalar_one()
    if row.expires_at_s * 1000 <= now:
        raise WrongStateError("its authorisation has expired; clone it", state=row.state)


def _trains(spec: spec_pb2.JobSpec) -> bool:
    return hasattr(getattr(spec.method, spec.method.WhichOneof("type") or ""), "hyperparameters")


def _set(tx: Transaction, row: JobRow, state: str, reason: str) -> None:
    values = {"state": state, "state_reason": reason}
    tx.connection.execute(update(_JOB).where(_JOB.c.id == row.id).values(**values))
    events.add(tx.connection, row.id, "state", state, attempt=row.attempt)
