# SPDX-License-Identifier: Apache-2.0
"""What a worker reports while it works.

Threat: a trainer that was taken over may try to talk.  Every report is a closed shape of figures and short
fixed words, checked here again after the agent; nothing that is longer or looks like text is taken.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from google.protobuf import json_format
from sqlalchemy import Connection, select, update

from cloister.api.v1 import jobs_pb2, workers_pb2
from cloister.evidence.canonical import JSON
from cloister.evidence.entry import Subject
from cloister_server.calls import Call
from cloister_server.database import tables
from cloister_server.database.engine import now_ms
from cloister_server.database.rows import JobRow, figures, to_text
from cloister_server.database.unit_of_work import Transaction
from cloister_server.errors import InvalidFieldError
from cloister_server.queue import events
from cloister_server.queue.fence import held_job
from cloister_server.queue.states import RUNNING, VALIDATING

STEPS = (
    "validate",
    "queue",
    "unseal",
    "train",
    "evaluate",
    "mitigate",
    "judge",
    "index",
    "select",
    "infer",
    "seal",
    "publish",
)
STATUSES = ("started", "finished", "failed")
MAX_EVENTS = 1000
_NAME = re.compile(r"[a-z][a-z0-9_.]{0,63}")
_MESSAGE = re.compile(r"[\x20-\x7e]{0,200}")
_MAX_FIGURES = 256
_MAX_ETA_SECONDS = 10 * 365 * 86400.0
"""An estimate beyond it, or one that is no number, says nothing; added to a time it would be none."""

_JOB = tables.job
_ATTEMPT = tables.job_attempt
_ENTRY_ACTIONS = {"checkpoint": "job.checkpoint", "evaluation": "job.evaluated"}


def report(tx: Transaction, call: Call, request: workers_pb2.ReportEventsRequest) -> None:
    """Record a batch.  What was recorded before is skipped.  Raises LeaseLostError, InvalidFieldError."""
    call.about("job", request.job_id)
    if len(request.events) > MAX_EVENTS:
        raise InvalidFieldError("events", f"at most {MAX_EVENTS} in one call")
    job = held_job(tx.connection, request.job_id, call.principal.id, request.attempt)
    last = _last_seq(tx.connection, job)
    for event in _new(request.events, last):
        check(event)
        _record(tx, call, job, event)
        last = event.stream_seq
    this = (_ATTEMPT.c.job_id == job.id) & (_ATTEMPT.c.attempt == job.attempt)
    tx.connection.execute(update(_ATTEMPT).where(this).values(last_stream_seq=last))


def _last_seq(connection: Connection, job: JobRow) -> int:
    query = select(_ATTEMPT.c.last_stream_seq).where(_ATTEMPT.c.job_id == job.id, _ATTEMPT.c.attempt == job.attempt)
    return int(connection.execute(query).scalar_one())


def _new(reported: Sequence[workers_pb2.WorkerEvent], last: int) -> list[workers_pb2.WorkerEvent]:
    new = [event for event in reported if event.stream_seq > last]
    if [event.stream_seq for event in new] != list(range(last + 1, last + 1 + len(new))):
        raise InvalidFieldError("events.stream_seq", f"must go on gaplessly after {last}")
    return new


def check(event: workers_pb2.WorkerEvent) -> None:
    """Raises InvalidFieldError."""
    if event.type not in events.REPORTED_TYPES or event.level not in events.LEVELS:
        raise InvalidFieldError("events.type", "a type or level that the contract does not list")
    if not _MESSAGE.fullmatch(event.message):
        raise InvalidFieldError("events.message", "more than fixed words: at most 200 printable ASCII characters")
    check_figures("events.data", event.data)
    if event.type == "progress":
        check_figures("events.progress.metrics", event.progress.metrics)
        if not _NAME.fullmatch(event.progress.label or "train"):
            raise InvalidFieldError("events.progress.label", "is not a name")
    if event.type == "step" and (event.step.name not in STEPS or event.step.status not in STATUSES):
        raise InvalidFieldError("events.step", "a step or status that the contract does not list")


def check_figures(field: str, data: Mapping[str, float]) -> None:
    """Raises InvalidFieldError for names that could carry content."""
    if len(data) > _MAX_FIGURES or not all(_NAME.fullmatch(name) for name in data):
        raise InvalidFieldError(field, "at most 256 figures with names of a-z, 0-9, '_' and '.'")


def _record(tx: Transaction, call: Call, job: JobRow, event: workers_pb2.WorkerEvent) -> None:
    data, message = dict(event.data), event.message
    if event.type == "step":
        message = message or f"{event.step.name} {event.step.status}"
        _step(tx, call, job, event.step)
    elif event.type == "progress":
        data = {**event.progress.metrics, **data, **_place(event.progress)}
        _progress(tx.connection, job, event.progress)
    if event.type in ("progress", "evaluation"):
        _keep_metrics(tx.connection, job, {**event.progress.metrics, **event.data})
    if event.type in _ENTRY_ACTIONS:
        detail: dict[str, JSON] = {"attempt": job.attempt, "stream_seq": event.stream_seq}
        tx.record(call.event(_ENTRY_ACTIONS[event.type], Subject("job", job.id), detail=detail))
    events.add(
        tx.connection,
        job.id,
        event.type,
        message or event.type,
        attempt=job.attempt,
        level=event.level,
        data=data,
    )


def _place(progress: jobs_pb2.Progress) -> dict[str, float]:
    return {"step": progress.current, "max_steps": progress.total, "eta_seconds": progress.eta_seconds}


def _step(tx: Transaction, call: Call, job: JobRow, step: jobs_pb2.JobStep) -> None:
    events.set_step(tx.connection, job.id, step.name, step.status)
    if (step.name, step.status) != ("validate", "finished"):
        return
    this = (_JOB.c.id == job.id) & (_JOB.c.state == VALIDATING)
    if tx.connection.execute(update(_JOB).where(this).values(state=RUNNING, state_reason="training")).rowcount:
        events.add(tx.connection, job.id, "state", RUNNING, attempt=job.attempt)
        tx.record(call.event("job.validated", Subject("job", job.id), detail={"attempt": job.attempt}))


def _progress(connection: Connection, job: JobRow, progress: jobs_pb2.Progress) -> None:
    kept = jobs_pb2.Progress()
    kept.CopyFrom(progress)
    kept.percent = 100 * progress.current / progress.total if progress.total > 0 else 0.0
    if not 0 <= kept.eta_seconds <= _MAX_ETA_SECONDS:
        kept.eta_seconds = 0.0
    kept.updated_at.FromMilliseconds(int(connection.execute(select(now_ms(connection))).scalar_one()))
    text = json_format.MessageToJson(kept, indent=None, preserving_proto_field_name=True)
    connection.execute(update(_JOB).where(_JOB.c.id == job.id).values(progress=text))


def _keep_metrics(connection: Connection, job: JobRow, new: Mapping[str, float]) -> None:
    stored = connection.execute(select(_JOB.c.metrics).where(_JOB.c.id == job.id)).scalar_one()
    # A name with a dot is one figure of a series, for example train_loss.17; the series is in the events.
    merged = {**figures(stored), **{name: value for name, value in new.items() if "." not in name}}
    if len(merged) <= _MAX_FIGURES:
        connection.execute(update(_JOB).where(_JOB.c.id == job.id).values(metrics=to_text(merged)))
