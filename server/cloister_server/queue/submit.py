# SPDX-License-Identifier: Apache-2.0
"""Submitting a job: everything that would make its opening fail later is refused now.

(1) The caller signed this very spec, for their own team, under the release policy in force.  (2) Every input is
registered, READY, of this team, for this purpose and pool, and not expired.  (3) A certified host of the pool
holds a wrap of every input.  The key agents check all of it again: here it saves the team a lost hour.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, insert

from cloister.api.v1 import jobs_pb2, spec_pb2
from cloister.evidence.authorisation import KIND_OF_ROLE, Authorisation, ObjectReference, verify_authorisation
from cloister.evidence.canonical import JSON
from cloister.evidence.entry import Subject
from cloister.evidence.errors import EvidenceError
from cloister.evidence.manifest import Manifest
from cloister.evidence.methods import INFERENCE
from cloister.evidence.roster import CLOCK_SKEW_SECONDS, Roster
from cloister.evidence.signatures import Statement
from cloister.wire import statement_from_proto
from cloister_server.calls import Call
from cloister_server.database import tables
from cloister_server.database.engine import now_ms
from cloister_server.database.rows import JobRow, ObjectRow, VersionRow
from cloister_server.database.unit_of_work import Transaction
from cloister_server.errors import (
    BlobIncompleteError,
    EvidenceRejectedError,
    IdConflictError,
    NoCapableWorkerError,
    NotFoundError,
    WrongStateError,
    of_evidence,
)
from cloister_server.operations import maintenance, quotas
from cloister_server.queue import events, views
from cloister_server.queue import spec as specs
from cloister_server.queue.states import QUEUED
from cloister_server.recipients import pool_key_ids
from cloister_server.registry import objects, policies, versions

_MODELS = ("model", "layer", "auxiliary", "auxiliary_layer")
_RELEASED = "RELEASED"


@dataclass(frozen=True)
class Submitted:
    """A verified submission."""

    statement: Statement
    authorisation: Authorisation
    spec_bytes: bytes
    spec: spec_pb2.JobSpec


def submit(tx: Transaction, call: Call, request: jobs_pb2.CreateJobRequest, roster: Roster, now: int) -> jobs_pb2.Job:
    """Queue a job, or return it where the very same one is queued already.

    Raises EvidenceRejectedError, InvalidFieldError, NotFoundError, BlobIncompleteError, NoCapableWorkerError,
    IdConflictError, MaintenanceError, QuotaExceededError, WrongStateError.
    """
    submitted = _read(call, request, roster, now)
    authorisation = submitted.authorisation
    stored = views.find_locked(tx.connection, authorisation.job_id)
    if stored is not None:
        return _again(tx.connection, call, stored, submitted)
    maintenance.check_open(tx.connection)
    quotas.check_submit(tx, authorisation.team)
    _check_policy(tx.connection, authorisation)
    rows = [
        _check_input(tx.connection, role, reference, authorisation, now) for role, reference in authorisation.places()
    ]
    _check_models(tx.connection, submitted)
    _check_capable(tx.connection, rows, authorisation.pool, roster, now)
    _insert(tx.connection, submitted)
    digest = submitted.statement.digest
    detail: dict[str, JSON] = {
        "spec_sha256": authorisation.spec_sha256,
        "inputs": len(rows),
        "pool": authorisation.pool,
    }
    tx.record(call.event("job.submit", Subject("job", authorisation.job_id, digest), detail=detail))
    return _stored_message(tx.connection, authorisation.job_id)


def _read(call: Call, request: jobs_pb2.CreateJobRequest, roster: Roster, now: int) -> Submitted:
    statement = statement_from_proto(request.authorisation)
    try:
        authorisation = verify_authorisation(statement, request.spec, roster, now=now)
    except EvidenceError as error:
        raise of_evidence(error) from error
    call.about("job", authorisation.job_id)
    if authorisation.member != call.principal.id:
        raise EvidenceRejectedError("BINDING", f"the job is signed by {authorisation.member}, not by the caller")
    spec = specs.read_spec(request.spec)
    specs.check_binding(spec, authorisation)
    return Submitted(statement, authorisation, request.spec, spec)


def _again(connection: Connection, call: Call, stored: JobRow, submitted: Submitted) -> jobs_pb2.Job:
    if stored.authorisation_sha256 != submitted.statement.digest or stored.team != call.principal.team:
        raise IdConflictError(f"job id {submitted.authorisation.job_id} is in use for something else; make a new id")
    return views.message(connection, stored)


def _check_policy(connection: Connection, authorisation: Authorisation) -> None:
    in_force = policies.in_force(connection)
    if in_force is None:
        raise WrongStateError("no release policy is in force; an auditor must publish one", state="no_policy")
    if in_force.digest != authorisation.policy_sha256:
        raise EvidenceRejectedError(
            "BINDING", "the job is bound to a release policy that is not in force; submit again"
        )


def _check_input(
    connection: Connection, role: str, reference: ObjectReference, authorisation: Authorisation, now: int
) -> ObjectRow:
    # Locked: a deletion that runs at the same time either sees this job or is seen by it.
    row = objects.find_locked(connection, reference.id)
    if row is None or row.team != authorisation.team or row.state == objects.DELETED or row.kind != KIND_OF_ROLE[role]:
        raise NotFoundError(role if role in _MODELS else "dataset")
    if row.trailer_sha256 != reference.trailer_sha256:
        raise EvidenceRejectedError("BINDING", f"{role} {reference.id}: the authorisation names another trailer")
    if row.state != objects.READY:
        raise BlobIncompleteError(f"{role} {reference.id} is not uploaded yet; finish the push first")
    manifest = Manifest.parse(row.manifest)
    if row.kind != "model" and authorisation.purpose not in manifest.purposes:
        raise EvidenceRejectedError("POLICY_NOT_MET", f"{role} {row.id} may not be used for this purpose")
    if manifest.pool != authorisation.pool:
        raise EvidenceRejectedError("BINDING", f"{role} {row.id} was sealed for pool {manifest.pool}")
    if manifest.minimum_epsilon is not None:
        raise EvidenceRejectedError("POLICY_NOT_MET", f"{role} {row.id} asks for differential privacy")
    if now >= manifest.expires_at + CLOCK_SKEW_SECONDS:
        raise EvidenceRejectedError("EXPIRED", f"{role} {row.id} has expired; its owner must seal it again")
    return row


def _check_models(connection: Connection, submitted: Submitted) -> None:
    """The versions that the spec names are the bases and layers that the authorisation names."""
    signed, spec = submitted.authorisation, submitted.spec
    version = _version(connection, spec.model, signed.team)
    named = (version.base or version.id, versions.layer_objects(version))
    if named != (signed.model.id, [layer.id for layer in signed.model_layers]):
        raise EvidenceRejectedError("BINDING", "the spec's model is not the one that the authorisation names")
    found = [version]
    if signed.auxiliary is not None:
        second = _version(connection, spec.auxiliary_model, signed.team)
        named = (second.base or second.id, versions.layer_objects(second, weights_only=True))
        if named != (signed.auxiliary.id, [layer.id for layer in signed.auxiliary_layers]):
            raise EvidenceRejectedError("BINDING", "the spec's auxiliary_model is not the one of the authorisation")
        found.append(second)
    if spec.method.WhichOneof("type") == INFERENCE:
        _check_answering(found)


def _version(connection: Connection, version_id: str, team: str) -> VersionRow:
    version = versions.find(connection, version_id)
    if version is None or version.team != team:
        raise NotFoundError("model")
    return version


def _check_answering(found: list[VersionRow]) -> None:
    """A candidate's answers would leave before its release policy holds."""
    for version in found:
        if version.base and version.state != _RELEASED:
            raise WrongStateError(
                f"model {version.id} is a candidate: base models and released versions answer; release it first, "
                "or measure it with an evaluation",
                state=version.state.lower(),
            )


def _check_capable(connection: Connection, rows: list[ObjectRow], pool: str, roster: Roster, now: int) -> None:
    holders = set(pool_key_ids(roster, pool, now))
    for row in rows:
        holders &= set(objects.recipients(connection, row.id))
    if not holders:
        raise NoCapableWorkerError(
            f"no certified host of pool {pool} holds a wrap of every input; wrap them to one: "
            "`cloister recovery rewrap`, `cloister model rewrap`",
            pool=pool,
        )


def _insert(connection: Connection, submitted: Submitted) -> None:
    signed = submitted.authorisation
    connection.execute(
        insert(tables.job).values(
            id=signed.job_id,
            team=signed.team,
            owner=signed.member,
            pool=signed.pool,
            purpose=signed.purpose,
            state=QUEUED,
            state_reason="waiting for a worker",
            priority=submitted.spec.priority,
            attempt=0,
            max_attempts=signed.max_attempts,
            worker="",
            lease_until=0,
            cancel_requested=False,
            resume_object_id="",
            model_version=submitted.spec.model,
            spec=submitted.spec_bytes,
            spec_sha256=signed.spec_sha256,
            authorisation=submitted.statement.to_bytes(),
            authorisation_sha256=submitted.statement.digest,
            policy_sha256=signed.policy_sha256,
            created_at=now_ms(connection),
            started_at=0,
            finished_at=0,
            expires_at_s=signed.expires_at,
            event_seq=0,
            trained_tokens=0,
            progress="",
            metrics="",
            error_code="",
            error_message="",
            error_param="",
        )
    )
    rows = [
        {"job_id": signed.job_id, "position": position, "role": role, "object_id": reference.id}
        for position, (role, reference) in enumerate(signed.places())
    ]
    connection.execute(insert(tables.job_input), rows)
    events.set_step(connection, signed.job_id, "queue", "started")
    events.add(connection, signed.job_id, "state", QUEUED, attempt=0)


def _stored_message(connection: Connection, job_id: str) -> jobs_pb2.Job:
    row = views.find(connection, job_id)
    if row is None:
        raise NotFoundError("job")
    return views.message(connection, row)
