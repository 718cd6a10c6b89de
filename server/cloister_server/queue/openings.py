# SPDX-License-Identifier: Apache-2.0
"""Openings: the entry that must be in the log before a key agent unwraps anything (EVIDENCE.md, "Opening").

One entry for each (work, attempt).  Crash order: the entry and the row that says that it exists commit
together; proofs are made after that, from the committed log, as often as they are asked for.
"""

from __future__ import annotations

from sqlalchemy import Connection, insert, select

from cloister.evidence.canonical import JSON
from cloister.evidence.entry import Entry, Subject
from cloister.evidence.opening import OPEN_JOB, OPEN_RELEASE
from cloister_audit import query as ledger_query
from cloister_server.calls import Call
from cloister_server.database import tables
from cloister_server.database.engine import now_ms
from cloister_server.database.rows import JobRow, ReleaseRow
from cloister_server.database.unit_of_work import Transaction
from cloister_server.errors import AuditUnavailableError, NotFoundError
from cloister_server.queue import views
from cloister_server.queue.fence import held_job, held_release, is_release
from cloister_server.registry import objects, versions

_OPENING = tables.opening
_BATCH = 200


def request(tx: Transaction, call: Call, work_id: str, attempt: int) -> None:
    """Write the entry of an opening, unless it is there.  Raises LeaseLostError."""
    connection, host = tx.connection, call.principal.id
    if is_release(connection, work_id):
        call.about("release", work_id)
        release = held_release(connection, work_id, host, attempt)
        action, subject, detail = (
            OPEN_RELEASE,
            Subject("release", work_id, release.request_sha256),
            _release(connection, release),
        )
    else:
        call.about("job", work_id)
        job = held_job(connection, work_id, host, attempt)
        action, subject, detail = OPEN_JOB, Subject("job", work_id, job.authorisation_sha256), _job(connection, job)
    known = select(_OPENING.c.work_id).where(_OPENING.c.work_id == work_id, _OPENING.c.attempt == attempt)
    if connection.execute(known).first() is not None:
        return
    connection.execute(insert(_OPENING).values(work_id=work_id, attempt=attempt, requested_at=now_ms(connection)))
    tx.record(call.event(action, subject, stage="intent", detail=detail))


def position(connection: Connection, work_id: str, attempt: int) -> int:
    """Where the entry of an opening is in the log.  Raises AuditUnavailableError where it is missing."""
    action = OPEN_RELEASE if is_release(connection, work_id) else OPEN_JOB
    wanted = ledger_query.Filter(action=action, object_id=work_id)
    after = -1
    while found := ledger_query.entries(connection, wanted, after, _BATCH):
        for seq, body in found:
            event = Entry.parse(body).event
            if event.stage == "intent" and event.detail.get("attempt") == attempt:
                return seq
        after = found[-1][0]
    raise AuditUnavailableError("the entry of this opening is missing in the log; tell the site's administrator")


def _job(connection: Connection, job: JobRow) -> dict[str, JSON]:
    inputs: list[JSON] = [_trailer(connection, object_id) for _, object_id in views.inputs(connection, job.id)]
    resume = _trailer(connection, job.resume_object_id) if job.resume_object_id else ""
    return {"attempt": job.attempt, "inputs": inputs, "resume": resume}


def _release(connection: Connection, release: ReleaseRow) -> dict[str, JSON]:
    version = versions.find(connection, release.model_version)
    if version is None:
        raise NotFoundError("release")
    trailer = _trailer(connection, version.object_id)
    return {"attempt": release.attempt, "inputs": [trailer], "recipient": release.recipient}


def _trailer(connection: Connection, object_id: str) -> str:
    row = objects.find(connection, object_id)
    if row is None:
        raise NotFoundError("object")
    return row.trailer_sha256
