# SPDX-License-Identifier: Apache-2.0
"""Jobs as their teams use them: read, list, cancel, watch."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, select, update

from cloister.api.v1 import jobs_pb2
from cloister.evidence.entry import Subject
from cloister_server.calls import AUDITOR, Call
from cloister_server.database import tables
from cloister_server.database.rows import JobRow, several
from cloister_server.database.unit_of_work import Transaction
from cloister_server.errors import NotFoundError
from cloister_server.pages import Page
from cloister_server.queue import endings, events, views
from cloister_server.queue.outlook import Outlook
from cloister_server.queue.states import CANCELLED, ENDED, LEASED

KIND = "job"
_JOB = tables.job
_BATCH = 500
MAX_SEQ = 2**53 - 1
"""The greatest integer of an entry; no job has so many events."""


def get(tx: Transaction, call: Call, job_id: str) -> jobs_pb2.Job:
    """One job.  Raises NotFoundError."""
    row = visible(tx.connection, call, job_id)
    tx.record(call.event("job.read", Subject(KIND, row.id)))
    return views.message(tx.connection, row)


def list_page(tx: Transaction, call: Call, page: Page) -> jobs_pb2.ListJobsResponse:
    """Jobs that the caller may see, newest first."""
    query = select(_JOB)
    if AUDITOR not in call.principal.roles:
        query = query.where(_JOB.c.team == call.principal.team)
    rows, token = page.split(several(tx.connection, page.apply(query, _JOB), JobRow))
    tx.record(call.event("job.list", Subject(KIND, ""), detail={"count": len(rows)}))
    outlook = Outlook(tx.connection)
    found = [views.message(tx.connection, row, outlook) for row in rows]
    return jobs_pb2.ListJobsResponse(jobs=found, next_page_token=token)


def cancel(tx: Transaction, call: Call, job_id: str) -> jobs_pb2.Job:
    """A waiting job ends at once; a leased one when its worker hears of it.  An ended one stays as it is."""
    call.about(KIND, job_id)
    row = views.find_locked(tx.connection, job_id)
    if row is None or row.team != call.principal.team:
        raise NotFoundError(KIND)
    if row.state not in ENDED and not row.cancel_requested:
        tx.record(call.event("job.cancel", Subject(KIND, job_id), detail={"attempt": row.attempt}))
        _cancel(tx, call, row)
    return views.message(tx.connection, visible(tx.connection, call, job_id))


def _cancel(tx: Transaction, call: Call, row: JobRow) -> None:
    this = update(_JOB).where(_JOB.c.id == row.id)
    if row.state in LEASED:
        tx.connection.execute(this.values(cancel_requested=True, state_reason="cancellation was asked for"))
        events.add(tx.connection, row.id, "message", "cancellation was asked for", attempt=row.attempt)
        return
    tx.connection.execute(this.values(cancel_requested=True))
    events.end_open_steps(tx.connection, row.id)
    endings.end_job(tx, row, CANCELLED, "cancelled by the team")
    tx.record(call.event("job.end", Subject(KIND, row.id), detail={"state": CANCELLED, "attempt": row.attempt}))


def begin_watch(tx: Transaction, call: Call, job_id: str, after_seq: int) -> None:
    """Leave the entry of a stream.  Raises NotFoundError."""
    row = visible(tx.connection, call, job_id)
    tx.record(call.event("job.watch", Subject(KIND, row.id), detail={"after_seq": min(after_seq, MAX_SEQ)}))


@dataclass(frozen=True)
class News:
    """What a watcher has not seen."""

    events: list[jobs_pb2.JobEvent]
    job: jobs_pb2.Job | None
    """As it is now; None where nobody asked for it and it goes on."""
    is_last: bool
    """The job has ended and these are its last events."""


def news(connection: Connection, call: Call, job_id: str, after_seq: int, *, with_job: bool) -> News:
    """What came after an event; `with_job` asks for the job too, which costs more.  Raises NotFoundError."""
    row = visible(connection, call, job_id)
    found = events.after(connection, job_id, after_seq, _BATCH)
    seen = found[-1].seq if found else after_seq
    is_last = row.state in ENDED and seen >= row.event_seq
    return News(found, views.message(connection, row) if with_job or is_last else None, is_last)


def visible(connection: Connection, call: Call, job_id: str) -> JobRow:
    """Raises NotFoundError."""
    call.about(KIND, job_id)
    row = views.find(connection, job_id)
    if row is None or not call.principal.may_see(row.team):
        raise NotFoundError(KIND)
    return row
