# SPDX-License-Identifier: Apache-2.0
"""What a worker is given with a lease: everything that its key agent needs to verify the opening by itself."""

from __future__ import annotations

from sqlalchemy import Connection, select

from cloister.api.v1 import common_pb2, workers_pb2
from cloister.evidence.result import Result
from cloister.evidence.roster import Roster
from cloister.evidence.signatures import Statement
from cloister.wire import statement_to_proto
from cloister_server.database import tables
from cloister_server.database.rows import JobRow, ReleaseRow
from cloister_server.errors import NotFoundError
from cloister_server.queue import views
from cloister_server.recipients import host_key_id
from cloister_server.registry import access, objects, policies, versions

_APPROVAL = tables.release_approval


def job_lease(connection: Connection, row: JobRow, roster: Roster) -> workers_pb2.JobLease:
    """A job, with every input's wrap for the host that leased it."""
    key_id = host_key_id(roster, row.worker)
    lease = workers_pb2.JobLease(
        job_id=row.id,
        attempt=row.attempt,
        spec=row.spec,
        authorisation=_statement(row.authorisation),
        policy=statement_to_proto(policies.by_digest(connection, row.policy_sha256)),
    )
    for role, object_id in views.inputs(connection, row.id):
        granted = _granted(connection, object_id, key_id)
        if role == "layer":
            lease.model_layers.append(granted)
        elif role == "auxiliary_layer":
            lease.auxiliary_layers.append(granted)
        else:
            getattr(lease, role).CopyFrom(granted)
    if row.resume_object_id:
        lease.resume.CopyFrom(_resume(connection, row.resume_object_id, key_id))
    return lease


def release_lease(connection: Connection, row: ReleaseRow, roster: Roster) -> workers_pb2.ReleaseLease:
    """A release, with the version's wrap for the host that leased it."""
    version = versions.find(connection, row.model_version)
    job = None if version is None else views.find(connection, version.job_id)
    if version is None or job is None:
        raise NotFoundError("release")
    approvals = [_statement(stored) for stored in approval_statements(connection, row.id)]
    return workers_pb2.ReleaseLease(
        release_id=row.id,
        attempt=row.attempt,
        request=_statement(row.request),
        approvals=approvals,
        policy=statement_to_proto(policies.by_digest(connection, row.policy_sha256)),
        result=_statement(version.result),
        authorisation=_statement(job.authorisation),
        object=_granted(connection, version.object_id, host_key_id(roster, row.worker)),
    )


def approval_statements(connection: Connection, release_id: str) -> list[bytes]:
    """Signed approvals of a release, oldest first."""
    query = select(_APPROVAL.c.statement).where(_APPROVAL.c.release_id == release_id)
    return list(connection.execute(query.order_by(_APPROVAL.c.created_at, _APPROVAL.c.approver)).scalars())


def _granted(connection: Connection, object_id: str, key_id: str) -> workers_pb2.GrantedObject:
    row = objects.find(connection, object_id)
    wrap = objects.wrap_of(connection, object_id, key_id)
    if row is None or wrap is None:
        raise NotFoundError("object")
    return workers_pb2.GrantedObject(
        object_id=object_id,
        sealed=objects.sealed_message(row),
        wrap=common_pb2.Wrap(recipient_key_id=key_id, wrap=wrap),
        size=row.size,
    )


def _resume(connection: Connection, object_id: str, key_id: str) -> workers_pb2.ResumePoint:
    artifact = access.find_artifact(connection, object_id)
    if artifact is None:
        raise NotFoundError("object")
    statement = Statement.from_bytes(artifact.result)
    return workers_pb2.ResumePoint(
        object=_granted(connection, object_id, key_id),
        result=statement_to_proto(statement),
        step=Result.parse(statement.payload).step,
    )


def _statement(stored: bytes) -> common_pb2.Statement:
    return statement_to_proto(Statement.from_bytes(stored))
