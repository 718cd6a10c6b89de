# SPDX-License-Identifier: Apache-2.0
"""Release policies, signed by a policy key.  The highest version is in force; jobs stay bound to theirs."""

from __future__ import annotations

from sqlalchemy import Connection, insert, select

from cloister.evidence.entry import Subject
from cloister.evidence.errors import EvidenceError
from cloister.evidence.policy import verify_policy
from cloister.evidence.roster import Roster
from cloister.evidence.signatures import Statement
from cloister_server.calls import Call
from cloister_server.database import tables
from cloister_server.database.engine import now_ms
from cloister_server.database.unit_of_work import Transaction
from cloister_server.errors import EvidenceRejectedError, NotFoundError, of_evidence

_POLICY = tables.policy


def publish(tx: Transaction, call: Call, statement: Statement, roster: Roster, now: int) -> str:
    """Put a policy in force; the same one again changes nothing.  Returns its digest."""
    try:
        policy = verify_policy(statement, roster, now=now)
    except EvidenceError as error:
        raise of_evidence(error) from error
    call.about("policy", policy.id)
    newest = _newest(tx.connection)
    if newest is not None and newest[0] == policy.version and newest[1].payload == statement.payload:
        return statement.digest
    if newest is not None and newest[0] >= policy.version:
        raise EvidenceRejectedError(
            "ROLLBACK", f"policy version {newest[0]} is in force; count the version on and sign again"
        )
    tx.connection.execute(
        insert(_POLICY).values(
            digest=statement.digest,
            policy_id=policy.id,
            version=policy.version,
            statement=statement.to_bytes(),
            published_at=now_ms(tx.connection),
        )
    )
    detail = {"version": policy.version, "auto_release": policy.auto_release}
    tx.record(call.event("policy.publish", Subject("policy", policy.id, statement.digest), detail=detail))
    return statement.digest


def in_force(connection: Connection) -> Statement | None:
    """The policy in force, or None before the first."""
    newest = _newest(connection)
    return None if newest is None else newest[1]


def by_digest(connection: Connection, digest: str) -> Statement:
    """Raises NotFoundError."""
    stored = connection.execute(select(_POLICY.c.statement).where(_POLICY.c.digest == digest)).scalar_one_or_none()
    if stored is None:
        raise NotFoundError("policy")
    return Statement.from_bytes(stored)


def _newest(connection: Connection) -> tuple[int, Statement] | None:
    query = select(_POLICY.c.version, _POLICY.c.statement).order_by(_POLICY.c.version.desc()).limit(1)
    row = connection.execute(query).one_or_none()
    return None if row is None else (row.version, Statement.from_bytes(row.statement))
