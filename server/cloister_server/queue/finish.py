# SPDX-License-Identifier: Apache-2.0
"""The end of an attempt, as its worker reports it.

A success makes the candidate in the same transaction: a job has ended once, with one result, or not at all.
"""

from __future__ import annotations

import json
import re

from sqlalchemy import Connection, insert, select, update

from cloister.api.v1 import jobs_pb2, models_pb2, workers_pb2
from cloister.evidence.authorisation import KIND_OF_ROLE
from cloister.evidence.canonical import JSON
from cloister.evidence.entry import Subject
from cloister.evidence.layers import LAYER_KINDS, stacked
from cloister.evidence.manifest import Manifest
from cloister.evidence.methods import report_method
from cloister.evidence.result import Result
from cloister.evidence.signatures import Statement
from cloister_server.calls import Call
from cloister_server.database import tables
from cloister_server.database.engine import now_ms
from cloister_server.database.rows import ArtifactRow, JobRow, ObjectRow, to_text
from cloister_server.database.unit_of_work import Transaction
from cloister_server.errors import (
    BlobIncompleteError,
    InvalidFieldError,
    LeaseLostError,
    NotFoundError,
    WrongStateError,
)
from cloister_server.queue import debias, endings, events, views
from cloister_server.queue import spec as specs
from cloister_server.queue.fence import held_job
from cloister_server.queue.states import CANCELLED, FAILED, PAUSED, PAUSING, PREEMPTED, SUCCEEDED
from cloister_server.registry import access, objects, versions

_JOB = tables.job
_ATTEMPT = tables.job_attempt
DEFAULT_SEED = 42
"""What a specification without a seed means, as clients spell it out."""
_OUTCOMES = {
    jobs_pb2.JOB_STATE_SUCCEEDED: SUCCEEDED,
    jobs_pb2.JOB_STATE_FAILED: FAILED,
    jobs_pb2.JOB_STATE_CANCELLED: CANCELLED,
    jobs_pb2.JOB_STATE_PAUSED: PAUSED,
    jobs_pb2.JOB_STATE_PREEMPTED: PREEMPTED,
}
# An enum of the contract takes numbers that it does not list.
_LAYER_KIND_NAMES = {number: name for name, number in models_pb2.LayerKind.items()}
_CODE = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
_TEXT = re.compile(r"[\x20-\x7e]{0,500}")
_PARAM = re.compile(r"[a-z0-9_.]{0,128}")


def finish(tx: Transaction, call: Call, request: workers_pb2.FinishJobRequest) -> jobs_pb2.JobState.ValueType:
    """End the attempt and return the job's state.  Raises LeaseLostError and what the outcome lacks."""
    call.about("job", request.job_id)
    outcome = _OUTCOMES.get(request.state)
    if outcome is None:
        raise InvalidFieldError("state", "is no outcome of an attempt")
    try:
        job = held_job(tx.connection, request.job_id, call.principal.id, request.attempt)
    except LeaseLostError:
        return _again(tx.connection, call, request, outcome)
    error = _error(request.error)
    if outcome == SUCCEEDED:
        _succeed(tx, call, request, job)
    elif outcome == PREEMPTED:
        _preempt(tx, call, job, error)
    else:
        if outcome == PAUSED and job.state != PAUSING:
            raise WrongStateError("the job was not asked to pause; finish it as PREEMPTED", state=job.state)
        endings.end_attempt(tx.connection, job, outcome)
        if outcome == PAUSED:
            _pause(tx, call, job)
        else:
            _end(tx, call, job, outcome, error)
    return _state(tx.connection, job.id)


def _again(
    connection: Connection, call: Call, request: workers_pb2.FinishJobRequest, outcome: str
) -> jobs_pb2.JobState.ValueType:
    """The same outcome twice succeeds: the first answer may have been lost."""
    query = select(_ATTEMPT.c.outcome).where(
        _ATTEMPT.c.job_id == request.job_id,
        _ATTEMPT.c.attempt == request.attempt,
        _ATTEMPT.c.worker == call.principal.id,
    )
    if connection.execute(query).scalar_one_or_none() != outcome:
        raise LeaseLostError(f"attempt {request.attempt} does not hold the lease any more; its outcome is not taken")
    return _state(connection, request.job_id)


def _error(error: jobs_pb2.JobError) -> tuple[str, str, str]:
    if not _TEXT.fullmatch(error.message) or not _PARAM.fullmatch(error.param):
        raise InvalidFieldError("error", "message or param are longer than fixed words, or not printable ASCII")
    if error.code and not _CODE.fullmatch(error.code):
        raise InvalidFieldError("error.code", "is not a code")
    return error.code, error.message, error.param


def _succeed(tx: Transaction, call: Call, request: workers_pb2.FinishJobRequest, job: JobRow) -> None:
    artifact = access.find_artifact(tx.connection, request.artifact_id)
    place = None if artifact is None else (artifact.job_id, artifact.attempt, artifact.kind)
    wanted = debias.KIND if report_method(job.spec) else "export"
    if artifact is None or place != (job.id, job.attempt, wanted):
        raise InvalidFieldError("artifact_id", f"is not of kind {wanted} and of this attempt")
    sealed = objects.find(tx.connection, artifact.object_id)
    if sealed is None or sealed.state != objects.READY:
        raise BlobIncompleteError("the result's blob is not uploaded yet; upload it, then finish")
    result = Result.parse(Statement.from_bytes(artifact.result).payload)
    layer = _layer(request, sealed, result) if wanted == "export" else None
    if layer is not None:
        debias.require_report(tx.connection, job.id, result)
    tx.connection.execute(
        update(_JOB)
        .where(_JOB.c.id == job.id)
        .values(trained_tokens=request.trained_tokens, metrics=_metrics(job, result))
    )
    if layer is not None:
        _insert_candidate(tx.connection, job, artifact, result, layer)
    endings.end_attempt(tx.connection, job, SUCCEEDED)
    events.set_step(tx.connection, job.id, "publish", "finished")
    endings.end_job(tx, job, SUCCEEDED, "finished")
    detail: dict[str, JSON] = {"state": SUCCEEDED, "attempt": job.attempt, "artifact": artifact.object_id}
    tx.record(call.event("job.end", Subject("job", job.id, artifact.result_sha256), detail=detail))


def _layer(request: workers_pb2.FinishJobRequest, sealed: ObjectRow, result: Result) -> str:
    """Kind of the new layer, as its host signed it in the manifest.  Raises InvalidFieldError."""
    kind = Manifest.parse(sealed.manifest).details.get("layer", "")
    said = _LAYER_KIND_NAMES.get(request.layer_kind, "").removeprefix("LAYER_KIND_").lower()
    if said not in LAYER_KINDS or said != kind or request.layer_digest != result.files_sha256:
        raise InvalidFieldError("layer_kind", "kind or digest are not those that manifest and result sign")
    return kind


def _metrics(job: JobRow, result: Result) -> str:
    known = json.loads(job.metrics or "{}")
    return to_text({**known, **{name: float(value) for name, value in result.metrics.items()}})


def _insert_candidate(connection: Connection, job: JobRow, artifact: ArtifactRow, result: Result, layer: str) -> None:
    start = versions.find(connection, job.model_version)
    if start is None:
        raise NotFoundError("model")
    spec = specs.parse_spec(job.spec)
    # What a host exports is one layer: it takes the place of the one of its class that the job started from.
    layers = stacked(versions.layers_of(start), (layer, (artifact.object_id, result.files_sha256)))
    datasets = [oid for role, oid in views.inputs(connection, job.id) if KIND_OF_ROLE[role] == "dataset"]
    found = [objects.find(connection, object_id) for object_id in datasets]
    connection.execute(
        insert(tables.model_version).values(
            id=job.id,
            name=spec.suffix or f"{start.name[:90]}-{job.id}",
            team=job.team,
            state="CANDIDATE",
            object_id=artifact.object_id,
            base=start.base or start.id,
            base_digest=start.base_digest,
            layers=versions.layers_text(layers),
            job_id=job.id,
            spec_digest=job.spec_sha256,
            dataset_digests=to_text([row.ciphertext_sha256 for row in found if row is not None]),
            seed=str(spec.seed or DEFAULT_SEED),
            metrics_before=to_text({name: float(value) for name, value in result.metrics_before.items()}),
            metrics_after=to_text({name: float(value) for name, value in result.metrics.items()}),
            epsilon=None,
            result=artifact.result,
            licence=start.licence,
            source=start.source,
            created_at=now_ms(connection),
        )
    )


def _preempt(tx: Transaction, call: Call, job: JobRow, error: tuple[str, str, str]) -> None:
    """An infrastructure fault: wait again while attempts are left."""
    endings.end_attempt(tx.connection, job, PREEMPTED)
    if job.cancel_requested:
        _end(tx, call, job, CANCELLED, endings.NO_ERROR)
    elif job.attempt >= job.max_attempts:
        _end(tx, call, job, FAILED, (error[0] or "attempts_used_up", error[1], error[2]))
    elif job.state == PAUSING:
        _pause(tx, call, job)
    else:
        endings.requeue_job(tx.connection, job, "infrastructure fault; waiting again")
        detail: dict[str, JSON] = {"attempt": job.attempt, "code": error[0]}
        tx.record(call.event("job.attempt.end", Subject("job", job.id), outcome="failed", detail=detail))


def _pause(tx: Transaction, call: Call, job: JobRow) -> None:
    endings.pause_job(tx.connection, job)
    detail: dict[str, JSON] = {"state": PAUSED, "attempt": job.attempt, "code": ""}
    tx.record(call.event("job.attempt.end", Subject("job", job.id), detail=detail))


def _end(tx: Transaction, call: Call, job: JobRow, state: str, error: tuple[str, str, str]) -> None:
    reasons = {FAILED: "failed", CANCELLED: "cancelled by the team"}
    if state == FAILED and not error[0]:
        raise InvalidFieldError("error.code", "a failed job says why")
    endings.end_job(tx, job, state, reasons[state], error if state == FAILED else endings.NO_ERROR)
    outcome = "failed" if state == FAILED else "ok"
    detail: dict[str, JSON] = {"state": state, "attempt": job.attempt, "code": error[0] if state == FAILED else ""}
    tx.record(call.event("job.end", Subject("job", job.id), outcome=outcome, detail=detail))


def _state(connection: Connection, job_id: str) -> jobs_pb2.JobState.ValueType:
    row = views.find(connection, job_id)
    if row is None:
        raise NotFoundError("job")
    return views.state_value(row.state)
