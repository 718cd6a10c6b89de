# SPDX-License-Identifier: Apache-2.0
"""A job as its team sees it."""

from __future__ import annotations

from google.protobuf import json_format
from sqlalchemy import Connection, select

from cloister.api.v1 import jobs_pb2
from cloister.evidence.methods import report_method
from cloister.evidence.signatures import Statement
from cloister.wire import statement_to_proto
from cloister_server.database import tables
from cloister_server.database.rows import JobRow, figures, one
from cloister_server.pages import timestamp
from cloister_server.queue import events
from cloister_server.queue import spec as specs
from cloister_server.queue.outlook import Outlook
from cloister_server.queue.states import FAILED, SUCCEEDED

_JOB = tables.job
_INPUT = tables.job_input


def find(connection: Connection, job_id: str) -> JobRow | None:
    """A job's row, or None."""
    return one(connection, select(_JOB).where(_JOB.c.id == job_id), JobRow)


def find_locked(connection: Connection, job_id: str) -> JobRow | None:
    """The same, locked until the transaction ends."""
    return one(connection, select(_JOB).where(_JOB.c.id == job_id).with_for_update(), JobRow)


def inputs(connection: Connection, job_id: str) -> list[tuple[str, str]]:
    """Role and object id of every input, in the order of `Authorisation.inputs`."""
    query = select(_INPUT.c.role, _INPUT.c.object_id).where(_INPUT.c.job_id == job_id).order_by(_INPUT.c.position)
    return [(row.role, row.object_id) for row in connection.execute(query)]


def message(connection: Connection, row: JobRow, outlook: Outlook | None = None) -> jobs_pb2.Job:
    """The job of the contract.  Whoever shows several jobs gives one `outlook` for all of them."""
    place = (outlook or Outlook(connection)).place(row)
    roles = dict(inputs(connection, row.id))
    spec = specs.parse_spec(row.spec)
    makes_version = not report_method(row.spec)
    job = jobs_pb2.Job(
        id=row.id,
        owner=row.owner,
        team=row.team,
        state=state_value(row.state),
        state_reason=row.state_reason,
        created_at=timestamp(row.created_at),
        started_at=timestamp(row.started_at),
        finished_at=timestamp(row.finished_at),
        model=row.model_version,
        fine_tuned_model=row.id if row.state == SUCCEEDED and makes_version else "",
        training_dataset=roles.get("training", ""),
        validation_dataset=roles.get("validation", ""),
        evaluation_dataset=roles.get("evaluation", ""),
        trained_tokens=row.trained_tokens,
        metadata=spec.metadata,
        spec=row.spec,
        spec_digest=row.spec_sha256,
        attempt=row.attempt,
        priority=row.priority,
        jobs_ahead=place.jobs_ahead,
        forecast_start=timestamp(place.forecast_start),
        steps=events.steps(connection, row.id),
        metrics=figures(row.metrics),
        authorisation=statement_to_proto(Statement.from_bytes(row.authorisation)),
        pool=row.pool,
        replay_dataset=roles.get("replay", ""),
        auxiliary_model=spec.auxiliary_model,
    )
    if row.state == FAILED:
        job.error.CopyFrom(jobs_pb2.JobError(code=row.error_code, message=row.error_message, param=row.error_param))
    if row.progress:
        json_format.Parse(row.progress, job.progress)
        _estimate(job)
    return job


def state_value(state: str) -> jobs_pb2.JobState.ValueType:
    """A stored state as the contract's number."""
    return jobs_pb2.JobState.Value(f"JOB_STATE_{state}")


def _estimate(job: jobs_pb2.Job) -> None:
    """The end of training as the trainer last estimated it."""
    if job.state == jobs_pb2.JOB_STATE_RUNNING and job.progress.eta_seconds > 0:
        end = job.progress.updated_at.ToMilliseconds() + int(job.progress.eta_seconds * 1000)
        job.estimated_finish.FromMilliseconds(end)
