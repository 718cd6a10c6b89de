# SPDX-License-Identifier: Apache-2.0
"""What a job found: figures of a de-biasing job for auditors, and a sealed report for its team.

Promise: the control plane reads figures, in which nothing is named, and never a report.  Both count only as far as
the result that the host signed binds them.  The report of an evaluation or of inference is bound by a result of its
own, which holds the metrics.
"""

from __future__ import annotations

from sqlalchemy import Connection, insert, select

from cloister.api.v1 import common_pb2, jobs_pb2
from cloister.evidence.authorisation import Authorisation
from cloister.evidence.entry import Subject
from cloister.evidence.errors import EvidenceError
from cloister.evidence.figures import verify_figures
from cloister.evidence.methods import report_method
from cloister.evidence.result import Result
from cloister.evidence.signatures import Statement
from cloister.wire import statement_to_proto
from cloister_server.calls import MEMBER, Call
from cloister_server.database import tables
from cloister_server.database.rows import ArtifactRow, JobRow, ObjectRow, one
from cloister_server.database.unit_of_work import Transaction
from cloister_server.errors import BlobIncompleteError, InvalidFieldError, NotFoundError, of_evidence
from cloister_server.queue import jobs
from cloister_server.queue import spec as specs
from cloister_server.queue.states import SUCCEEDED
from cloister_server.registry import objects, versions

KIND = "report"
_FIGURES = tables.artifact_figures
_ARTIFACT = tables.artifact
_OBJECT = tables.sealed_object


def check_kind(job: JobRow, kind: str) -> None:
    """A job brings what its method ends with, and nothing of another kind.  Raises InvalidFieldError."""
    if report_method(job.spec):
        if kind == "export":
            raise InvalidFieldError("kind", "a job of this method makes no version")
    elif kind == KIND and specs.parse_spec(job.spec).method.WhichOneof("type") != "debias":
        raise InvalidFieldError("kind", "a job of this method has no report")


def check_first(connection: Connection, job: JobRow, kind: str) -> None:
    """A job that ends with a report has one for each attempt, so that what is read is what it ended with."""
    if kind == KIND and report_method(job.spec) and _report_of_attempt(connection, job) is not None:
        raise InvalidFieldError("kind", "the attempt has brought its report already")


def check_figures(job: JobRow, result: Result, figures: bytes) -> None:
    """Figures are those that the result binds, or there are none.  Raises EvidenceRejectedError, InvalidFieldError."""
    if not result.figures_sha256 and not figures:
        return
    if not result.figures_sha256:
        raise InvalidFieldError("figures", "the result binds none")
    signed = Authorisation.parse(Statement.from_bytes(job.authorisation).payload)
    try:
        verify_figures(figures, result, signed)
    except EvidenceError as error:
        raise of_evidence(error) from error


def store_figures(connection: Connection, object_id: str, figures: bytes) -> None:
    """Keep the figures of an export that has just been registered."""
    if figures:
        connection.execute(insert(_FIGURES).values(object_id=object_id, figures=figures))


def require_report(connection: Connection, job_id: str, result: Result) -> None:
    """A result that binds a report counts only with it.  Raises BlobIncompleteError."""
    if result.report_trailer_sha256 and _report(connection, job_id, result) is None:
        raise BlobIncompleteError("the report that the result binds is not uploaded yet; upload it, then finish")


def get(tx: Transaction, call: Call, job_id: str) -> jobs_pb2.GetJobReportResponse:
    """Figures for whoever may see the job, the sealed report for its team alone.  Raises NotFoundError."""
    job = jobs.visible(tx.connection, call, job_id)
    found = (_of_report_job if report_method(job.spec) else _of_debias_job)(tx.connection, job)
    if found is None:
        raise NotFoundError(KIND)
    statement, figures, report = found
    of_team = MEMBER in call.principal.roles and call.principal.team == job.team
    tx.record(call.event("report.read", Subject(jobs.KIND, job.id, statement.digest), detail={"sealed": of_team}))
    answer = jobs_pb2.GetJobReportResponse(result=statement_to_proto(statement), figures=figures)
    if of_team:
        _add_report(tx.connection, answer, report)
    return answer


Found = tuple[Statement, bytes, ObjectRow]
"""Signed result, figures, sealed report."""


def _of_debias_job(connection: Connection, job: JobRow) -> Found | None:
    version = versions.find(connection, job.id)
    if version is None:
        return None
    statement = Statement.from_bytes(version.result)
    figures = _figures(connection, version.object_id)
    report = _report(connection, job.id, Result.parse(statement.payload))
    return None if figures is None or report is None else (statement, figures, report)


def _of_report_job(connection: Connection, job: JobRow) -> Found | None:
    """The report with which the job ended; what an attempt left behind that did not end it is no report."""
    if job.state != SUCCEEDED:
        return None
    artifact = _report_of_attempt(connection, job)
    report = None if artifact is None else objects.find(connection, artifact.object_id)
    return None if artifact is None or report is None else (Statement.from_bytes(artifact.result), b"", report)


def _report_of_attempt(connection: Connection, job: JobRow) -> ArtifactRow | None:
    """Of the newest attempt."""
    last = (_ARTIFACT.c.job_id == job.id) & (_ARTIFACT.c.attempt == job.attempt) & (_ARTIFACT.c.kind == KIND)
    return one(connection, select(_ARTIFACT).where(last), ArtifactRow)


def _add_report(connection: Connection, answer: jobs_pb2.GetJobReportResponse, report: ObjectRow) -> None:
    answer.object_id, answer.size = report.id, report.size
    answer.sealed.CopyFrom(objects.sealed_message(report))
    for key_id in objects.recipients(connection, report.id):
        wrap = objects.wrap_of(connection, report.id, key_id)
        answer.wraps.append(common_pb2.Wrap(recipient_key_id=key_id, wrap=wrap or b""))


def _figures(connection: Connection, object_id: str) -> bytes | None:
    query = select(_FIGURES.c.figures).where(_FIGURES.c.object_id == object_id)
    found: bytes | None = connection.execute(query).scalar_one_or_none()
    return found


def _report(connection: Connection, job_id: str, result: Result) -> ObjectRow | None:
    """The complete report that a result binds, made by the attempt that made the result."""
    query = (
        select(_OBJECT)
        .join(_ARTIFACT, _ARTIFACT.c.object_id == _OBJECT.c.id)
        .where(
            _ARTIFACT.c.job_id == job_id,
            _ARTIFACT.c.attempt == result.attempt,
            _ARTIFACT.c.kind == KIND,
            _OBJECT.c.trailer_sha256 == result.report_trailer_sha256,
            _OBJECT.c.state == objects.READY,
        )
    )
    return one(connection, query, ObjectRow)
