# SPDX-License-Identifier: Apache-2.0
"""Releases: a member asks, others approve, a host's key agent decides and re-wraps.

(1) The request is signed by the caller and binds this version's result, trailer and policy.  (2) The policy that
the job was bound to is in force and its rules hold; a de-biased version passed its gate, or an exception is asked for.
(3) Approvals are signed by approvers of this very request, never by the requester; an exception waits for one,
whatever the policy says.  (4) With enough of them the release waits for a host; what the host's key agent signs is
verified and kept.  All of it is checked again by the key agent, which alone can wrap.
"""

from __future__ import annotations

import hashlib
import re

from sqlalchemy import Connection, func, insert, select, update

from cloister.api.v1 import models_pb2, workers_pb2
from cloister.evidence.authorisation import Authorisation
from cloister.evidence.canonical import JSON
from cloister.evidence.entry import Subject
from cloister.evidence.errors import EvidenceError, PolicyError
from cloister.evidence.figures import VERDICT_METRIC
from cloister.evidence.policy import Policy, verify_policy
from cloister.evidence.release import (
    Approval,
    ReleaseRequest,
    check_gate,
    verify_approval,
    verify_release,
    verify_request,
)
from cloister.evidence.result import Result
from cloister.evidence.roster import Roster
from cloister.evidence.signatures import Statement
from cloister.wire import statement_from_proto
from cloister_server.calls import Call
from cloister_server.database import tables
from cloister_server.database.engine import now_ms
from cloister_server.database.rows import ReleaseRow, VersionRow
from cloister_server.database.unit_of_work import Transaction
from cloister_server.errors import (
    EvidenceRejectedError,
    IdConflictError,
    InvalidFieldError,
    LeaseLostError,
    NoCapableWorkerError,
    NotFoundError,
    SelfApprovalError,
    WrongStateError,
    of_evidence,
    of_policy,
)
from cloister_server.operations import maintenance
from cloister_server.queue import views
from cloister_server.queue.fence import held_release
from cloister_server.queue.states import GRANTED, PENDING, QUEUED, REFUSED
from cloister_server.recipients import pool_key_ids, recipient_key_id
from cloister_server.registry import objects, policies, release_views, versions

KIND = "release"
_RELEASE = tables.release
_APPROVAL = tables.release_approval
_VERSION = tables.model_version
_REFUSAL = re.compile(r"[A-Z][A-Z_]{0,63}")


def create(
    tx: Transaction, call: Call, request: models_pb2.CreateReleaseRequest, roster: Roster, now: int
) -> models_pb2.Release:
    """Register a request, or return it where the very same one is registered already.

    Raises EvidenceRejectedError, NotFoundError, WrongStateError, PolicyNotMetError, IdConflictError,
    NoCapableWorkerError.
    """
    statement = statement_from_proto(request.request)
    asked = _read_request(call, statement, roster, now)
    stored = release_views.find_locked(tx.connection, asked.release_id)
    if stored is not None:
        if stored.request_sha256 != statement.digest:
            raise IdConflictError(f"release id {asked.release_id} is in use for something else; make a new id")
        return release_views.message(tx.connection, call, stored)
    maintenance.check_open(tx.connection)
    version = _version(tx.connection, asked)
    pool = _check_job(tx.connection, asked, version)
    policy = _check_policy(tx.connection, asked, version, roster, now)
    if not pool_key_ids(roster, pool, now) & set(objects.recipients(tx.connection, version.object_id)):
        raise NoCapableWorkerError(f"no certified host of pool {pool} can open this version", pool=pool)
    wanted = max(policy.approvals, 1 if asked.exception else 0)
    _insert(tx.connection, asked, statement, pool, wanted, PENDING if wanted else QUEUED)
    detail: dict[str, JSON] = {
        "version": version.id,
        "recipient": asked.recipient,
        "approvals_required": wanted,
        "exception": asked.exception,
    }
    tx.record(call.event("release.request", Subject(KIND, asked.release_id, statement.digest), detail=detail))
    return release_views.stored_message(tx.connection, call, asked.release_id)


def _read_request(call: Call, statement: Statement, roster: Roster, now: int) -> ReleaseRequest:
    try:
        asked = verify_request(statement, roster, now=now)
    except EvidenceError as error:
        raise of_evidence(error) from error
    call.about(KIND, asked.release_id)
    if asked.requester != call.principal.id:
        raise EvidenceRejectedError("BINDING", f"the request is signed by {asked.requester}, not by the caller")
    return asked


def _version(connection: Connection, asked: ReleaseRequest) -> VersionRow:
    version = versions.find(connection, asked.model_version)
    if version is None or version.team != asked.team:
        raise NotFoundError("model")
    if version.state not in ("CANDIDATE", "RELEASED"):
        raise WrongStateError("only the result of a job can be released", state=version.state)
    sealed = objects.find(connection, version.object_id)
    result = Statement.from_bytes(version.result)
    if sealed is None or (asked.result_sha256, asked.trailer_sha256) != (result.digest, sealed.trailer_sha256):
        raise EvidenceRejectedError("BINDING", "the request binds another result than this version's")
    return version


def _check_job(connection: Connection, asked: ReleaseRequest, version: VersionRow) -> str:
    """The pool of the job that made the version."""
    job = views.find(connection, version.job_id)
    if job is None:
        raise NotFoundError("model")
    signed = Authorisation.parse(Statement.from_bytes(job.authorisation).payload)
    if asked.policy_sha256 != signed.policy_sha256:
        raise EvidenceRejectedError("BINDING", "the request binds another policy than the job was authorised under")
    return signed.pool


def _check_policy(
    connection: Connection, asked: ReleaseRequest, version: VersionRow, roster: Roster, now: int
) -> Policy:
    try:
        policy = verify_policy(policies.by_digest(connection, asked.policy_sha256), roster, now=now)
    except EvidenceError as error:
        raise of_evidence(error) from error
    result = Result.parse(Statement.from_bytes(version.result).payload)
    if not result.sandboxed and not policy.allow_unsandboxed:
        raise of_policy(PolicyError("the job ran without a sandbox, which the policy does not allow"), "sandbox")
    for rule in policy.rules:
        try:
            rule.check(result.metrics)
        except PolicyError as error:
            raise of_policy(error, rule.metric) from error
    try:
        check_gate(result, exception=asked.exception)
    except PolicyError as error:
        raise of_policy(error, VERDICT_METRIC) from error
    return policy


def _insert(
    connection: Connection, asked: ReleaseRequest, statement: Statement, pool: str, approvals: int, state: str
) -> None:
    connection.execute(
        insert(_RELEASE).values(
            id=asked.release_id,
            model_version=asked.model_version,
            team=asked.team,
            pool=pool,
            requester=asked.requester,
            recipient=asked.recipient,
            state=state,
            request=statement.to_bytes(),
            request_sha256=statement.digest,
            policy_sha256=asked.policy_sha256,
            approvals_required=approvals,
            attempt=0,
            worker="",
            lease_until=0,
            wrap_key_id="",
            wrap=b"",
            statement=b"",
            refusal="",
            created_at=now_ms(connection),
        )
    )


def approve(
    tx: Transaction, call: Call, release_id: str, statement: Statement, roster: Roster, now: int
) -> models_pb2.Release:
    """Add an approval; with enough of them the release waits for a host."""
    call.about(KIND, release_id)
    row = release_views.find_locked(tx.connection, release_id)
    if row is None or not release_views.may_see(call, row):
        raise NotFoundError(KIND)
    approval = _read_approval(call, row, statement, roster, now)
    given = select(_APPROVAL.c.approver).where(
        _APPROVAL.c.release_id == row.id, _APPROVAL.c.approver == approval.approver
    )
    if tx.connection.execute(given).first() is not None:
        return release_views.message(tx.connection, call, row)
    if row.state != PENDING:
        raise WrongStateError("the release waits for no approval", state=release_views.public_state(row))
    tx.connection.execute(
        insert(_APPROVAL).values(
            release_id=row.id,
            approver=approval.approver,
            statement=statement.to_bytes(),
            created_at=now_ms(tx.connection),
        )
    )
    count = select(func.count()).select_from(_APPROVAL).where(_APPROVAL.c.release_id == row.id)
    given_count = int(tx.connection.execute(count).scalar_one())
    if given_count >= row.approvals_required:
        tx.connection.execute(update(_RELEASE).where(_RELEASE.c.id == row.id).values(state=QUEUED))
    detail: dict[str, JSON] = {
        "approvals": given_count,
        "approvals_required": row.approvals_required,
        "exception": approval.exception,
    }
    tx.record(call.event("release.approve", Subject(KIND, row.id, statement.digest), detail=detail))
    return release_views.stored_message(tx.connection, call, row.id)


def _read_approval(call: Call, row: ReleaseRow, statement: Statement, roster: Roster, now: int) -> Approval:
    if call.principal.id == row.requester:
        raise SelfApprovalError("a request is approved by somebody else than its requester")
    try:
        approval = verify_approval(statement, Statement.from_bytes(row.request), roster, now=now)
    except EvidenceError as error:
        raise of_evidence(error) from error
    if approval.approver != call.principal.id or approval.release_id != row.id:
        raise EvidenceRejectedError("BINDING", "the approval is of somebody else, or for another release")
    return approval


def finish(
    tx: Transaction, call: Call, request: workers_pb2.FinishReleaseRequest, roster: Roster, now: int
) -> models_pb2.ReleaseState.ValueType:
    """Record what the key agent did.  Raises LeaseLostError, EvidenceRejectedError, InvalidFieldError."""
    call.about(KIND, request.release_id)
    try:
        row = held_release(tx.connection, request.release_id, call.principal.id, request.attempt)
    except LeaseLostError:
        return _again(tx.connection, call, request)
    if request.refusal:
        if not _REFUSAL.fullmatch(request.refusal):
            raise InvalidFieldError("refusal", "is not the name of a check")
        values = {"state": REFUSED, "refusal": request.refusal, "lease_until": 0}
        tx.connection.execute(update(_RELEASE).where(_RELEASE.c.id == row.id).values(**values))
        detail: dict[str, JSON] = {"attempt": row.attempt, "check": request.refusal}
        tx.record(call.event("release.end", Subject(KIND, row.id), outcome="denied", detail=detail))
        return models_pb2.RELEASE_STATE_REFUSED
    _grant(tx, call, request, row, roster, now)
    return models_pb2.RELEASE_STATE_GRANTED


def _grant(
    tx: Transaction,
    call: Call,
    request: workers_pb2.FinishReleaseRequest,
    row: ReleaseRow,
    roster: Roster,
    now: int,
) -> None:
    statement = statement_from_proto(request.statement)
    asked = Statement.from_bytes(row.request)
    try:
        key_id = recipient_key_id(roster.person(row.recipient).recipient)
        release = verify_release(statement, asked, request.wrap.wrap, roster, recipient_key_id=key_id, now=now)
    except EvidenceError as error:
        raise of_evidence(error) from error
    if release.exception != ReleaseRequest.parse(asked.payload).exception:
        raise EvidenceRejectedError("BINDING", "the statement and the request differ on whether this is an exception")
    if release.host != call.principal.id or release.release_id != row.id or request.wrap.recipient_key_id != key_id:
        raise EvidenceRejectedError("BINDING", "the statement is of another host, release or recipient")
    tx.connection.execute(
        update(_RELEASE)
        .where(_RELEASE.c.id == row.id)
        .values(
            state=GRANTED,
            lease_until=0,
            wrap_key_id=key_id,
            wrap=request.wrap.wrap,
            statement=statement.to_bytes(),
        )
    )
    tx.connection.execute(update(_VERSION).where(_VERSION.c.id == row.model_version).values(state="RELEASED"))
    detail: dict[str, JSON] = {
        "attempt": row.attempt,
        "recipient": row.recipient,
        "wrap_sha256": hashlib.sha256(request.wrap.wrap).hexdigest(),
        "auto_release": release.auto_release,
        "exception": release.exception,
    }
    tx.record(call.event("release.end", Subject(KIND, row.id, statement.digest), detail=detail))


def _again(
    connection: Connection, call: Call, request: workers_pb2.FinishReleaseRequest
) -> models_pb2.ReleaseState.ValueType:
    """The same outcome twice succeeds: the first answer may have been lost."""
    row = release_views.find(connection, request.release_id)
    wanted = REFUSED if request.refusal else GRANTED
    held = None if row is None else (row.worker, row.attempt, row.state, row.refusal)
    if row is None or held != (call.principal.id, request.attempt, wanted, request.refusal):
        raise LeaseLostError(f"attempt {request.attempt} does not hold the lease any more; its outcome is not taken")
    return models_pb2.RELEASE_STATE_REFUSED if request.refusal else models_pb2.RELEASE_STATE_GRANTED
