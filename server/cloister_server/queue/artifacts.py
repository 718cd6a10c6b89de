# SPDX-License-Identifier: Apache-2.0
"""Checkpoints, results and reports that a worker registers under its lease."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import insert

from cloister.api.v1 import workers_pb2
from cloister.evidence.canonical import JSON
from cloister.evidence.entry import Subject
from cloister.evidence.errors import EvidenceError
from cloister.evidence.manifest import Manifest
from cloister.evidence.methods import report_method
from cloister.evidence.result import verify_result
from cloister.evidence.roster import Roster
from cloister.evidence.signatures import Statement
from cloister.wire import statement_from_proto
from cloister_server.calls import Call
from cloister_server.database import tables
from cloister_server.database.rows import JobRow
from cloister_server.database.unit_of_work import Transaction
from cloister_server.errors import EvidenceRejectedError, InvalidFieldError, of_evidence
from cloister_server.queue import debias
from cloister_server.queue.fence import held_job
from cloister_server.recipients import pool_key_ids, report_key_ids
from cloister_server.registry import objects

_KINDS = {
    workers_pb2.ARTIFACT_KIND_STATE: "state",
    workers_pb2.ARTIFACT_KIND_EXPORT: "export",
    workers_pb2.ARTIFACT_KIND_REPORT: debias.KIND,
}


def create(tx: Transaction, call: Call, request: workers_pb2.CreateArtifactRequest, roster: Roster, now: int) -> str:
    """Register an artifact and return its object id.

    Raises LeaseLostError, EvidenceRejectedError, InvalidFieldError, IdConflictError.
    """
    call.about("job", request.job_id)
    kind = _KINDS.get(request.kind)
    if kind is None:
        raise InvalidFieldError("kind", "is neither STATE, EXPORT nor REPORT")
    job = held_job(tx.connection, request.job_id, call.principal.id, request.attempt)
    offered = objects.read_offer(request.sealed, request.wraps, roster, now=now)
    _check_manifest(call, request, job, offered.manifest, kind)
    statement = None
    debias.check_kind(job, kind)
    if kind == debias.KIND and not report_method(job.spec):
        if request.HasField("result") or request.figures:
            raise InvalidFieldError("result", "the report of such a job has none of its own, and no figures")
    else:
        statement = _check_result(call, request, job, offered, roster, now)
    if objects.find(tx.connection, offered.manifest.id) is None:
        debias.check_first(tx.connection, job, kind)
        objects.check_recipients(offered, _recipients(kind, job, roster, now))
    if objects.register(tx, offered):
        _insert(tx, request, offered, statement, kind)
        debias.store_figures(tx.connection, offered.manifest.id, request.figures)
        detail: dict[str, JSON] = {
            "job": job.id,
            "attempt": job.attempt,
            "step": request.step,
            "size": offered.trailer.ciphertext_size,
        }
        subject = Subject("artifact", offered.manifest.id, offered.verified.trailer_sha256)
        tx.record(call.event("artifact.create", subject, detail=detail))
    return offered.manifest.id


def _recipients(kind: str, job: JobRow, roster: Roster, now: int) -> frozenset[str]:
    if kind == debias.KIND:
        return report_key_ids(roster, job.owner, job.team)
    return pool_key_ids(roster, job.pool, now)


def _check_manifest(
    call: Call, request: workers_pb2.CreateArtifactRequest, job: JobRow, manifest: Manifest, kind: str
) -> None:
    """Manifest and lease name the same thing.  Raises EvidenceRejectedError."""
    where = (job.id, str(job.attempt), str(request.step))
    pairs = (
        ("kind", manifest.kind, kind),
        ("host", manifest.owner, call.principal.id),
        ("team", manifest.team, job.team),
        ("pool", manifest.pool, job.pool),
        ("place", tuple(manifest.details.get(name, "") for name in ("job_id", "attempt", "step")), where),
    )
    _check_pairs(manifest, pairs)


def _check_result(
    call: Call,
    request: workers_pb2.CreateArtifactRequest,
    job: JobRow,
    offered: objects.Offered,
    roster: Roster,
    now: int,
) -> Statement:
    """The result is of this very object and lease, and binds the figures.  Raises EvidenceRejectedError."""
    statement, manifest = statement_from_proto(request.result), offered.manifest
    digest = job.authorisation_sha256
    try:
        result = verify_result(statement, roster, kind=manifest.kind, authorisation_sha256=digest, now=now)
    except EvidenceError as error:
        raise of_evidence(error) from error
    where = (job.id, str(job.attempt), str(request.step))
    pairs = (
        ("signer of the result", result.host, call.principal.id),
        ("place in the result", (result.job_id, str(result.attempt), str(result.step)), where),
        ("object", result.object_id, manifest.id),
        ("trailer", result.trailer_sha256, offered.verified.trailer_sha256),
        ("file list", result.files_sha256, manifest.details.get("files_sha256", "")),
    )
    _check_pairs(manifest, pairs)
    debias.check_figures(job, result, request.figures)
    return statement


def _check_pairs(manifest: Manifest, pairs: Iterable[tuple[str, object, object]]) -> None:
    for name, found, wanted in pairs:
        if found != wanted:
            raise EvidenceRejectedError("BINDING", f"artifact {manifest.id}: {name} does not match the lease or result")


def _insert(
    tx: Transaction,
    request: workers_pb2.CreateArtifactRequest,
    offered: objects.Offered,
    statement: Statement | None,
    kind: str,
) -> None:
    tx.connection.execute(
        insert(tables.artifact).values(
            object_id=offered.manifest.id,
            job_id=request.job_id,
            attempt=request.attempt,
            step=request.step,
            kind=kind,
            result=b"" if statement is None else statement.to_bytes(),
            result_sha256="" if statement is None else statement.digest,
        )
    )
