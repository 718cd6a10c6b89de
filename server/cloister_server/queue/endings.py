# SPDX-License-Identifier: Apache-2.0
"""How a job leaves a lease: for good, or back into the queue.  The caller writes the audit entries."""

from __future__ import annotations

from sqlalchemy import Connection, update

from cloister_server.database import tables
from cloister_server.database.engine import now_ms
from cloister_server.database.rows import JobRow
from cloister_server.database.unit_of_work import Transaction
from cloister_server.queue import checkpoints, events
from cloister_server.queue.states import FAILED, PAUSED, PREEMPTED

_JOB = tables.job
_ATTEMPT = tables.job_attempt

NO_ERROR = ("", "", "")


def end_attempt(connection: Connection, job: JobRow, outcome: str) -> None:
    """Close the attempt's record; its time counts for the team's share from now on as it is."""
    this = (_ATTEMPT.c.job_id == job.id) & (_ATTEMPT.c.attempt == job.attempt)
    connection.execute(update(_ATTEMPT).where(this).values(ended_at=now_ms(connection), outcome=outcome))
    events.end_open_steps(connection, job.id)


def end_job(tx: Transaction, job: JobRow, state: str, reason: str, error: tuple[str, str, str] = NO_ERROR) -> None:
    """Put a job into a final state, and its notices with it; no checkpoint leads on from there.

    `error` is code, message and param.
    """
    code, message, param = error
    tx.connection.execute(
        update(_JOB)
        .where(_JOB.c.id == job.id)
        .values(
            state=state,
            state_reason=reason,
            lease_until=0,
            finished_at=now_ms(tx.connection),
            error_code=code,
            error_message=message,
            error_param=param,
        )
    )
    checkpoints.discard_all(tx, job.id)
    level = "error" if state == FAILED else "info"
    events.add(tx.connection, job.id, "state", state, attempt=job.attempt, level=level)
    tx.outbox.job_ended(tx, job, state, code)


def pause_job(connection: Connection, job: JobRow) -> None:
    """Let it rest until its team goes on with it; it has not ended."""
    values = {"state": PAUSED, "state_reason": "paused", "lease_until": 0}
    connection.execute(update(_JOB).where(_JOB.c.id == job.id).values(**values))
    events.add(connection, job.id, "state", PAUSED, attempt=job.attempt)


def requeue_job(connection: Connection, job: JobRow, reason: str) -> None:
    """Let it wait for the next attempt."""
    connection.execute(
        update(_JOB).where(_JOB.c.id == job.id).values(state=PREEMPTED, state_reason=reason, lease_until=0)
    )
    events.set_step(connection, job.id, "queue", "started")
    events.add(connection, job.id, "state", PREEMPTED, attempt=job.attempt, level="warn")
