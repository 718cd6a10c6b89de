# SPDX-License-Identifier: Apache-2.0
"""Releases as members, approvers and auditors see them."""

from __future__ import annotations

from sqlalchemy import Connection, select

from cloister.api.v1 import common_pb2, models_pb2
from cloister.evidence.entry import Subject
from cloister.evidence.release import ReleaseRequest
from cloister.evidence.signatures import Statement
from cloister.wire import statement_to_proto
from cloister_server.calls import AUDITOR, Call
from cloister_server.database import tables
from cloister_server.database.rows import ReleaseRow, one, several
from cloister_server.database.unit_of_work import Transaction
from cloister_server.errors import NotFoundError
from cloister_server.pages import Page, timestamp
from cloister_server.queue.handover import approval_statements
from cloister_server.queue.states import QUEUED, RELEASE_LEASED

KIND = "release"
_RELEASE = tables.release


def may_see(call: Call, row: ReleaseRow) -> bool:
    """The team's own people, approvers among them, and auditors."""
    return call.principal.may_see(row.team)


def find(connection: Connection, release_id: str) -> ReleaseRow | None:
    """A release's row, or None."""
    return one(connection, select(_RELEASE).where(_RELEASE.c.id == release_id), ReleaseRow)


def find_locked(connection: Connection, release_id: str) -> ReleaseRow | None:
    """The same, locked until the transaction ends."""
    return one(connection, select(_RELEASE).where(_RELEASE.c.id == release_id).with_for_update(), ReleaseRow)


def get(tx: Transaction, call: Call, release_id: str) -> models_pb2.Release:
    """One release.  Raises NotFoundError."""
    call.about(KIND, release_id)
    row = find(tx.connection, release_id)
    if row is None or not may_see(call, row):
        raise NotFoundError(KIND)
    tx.record(call.event("release.read", Subject(KIND, row.id)))
    return message(tx.connection, call, row)


def list_page(tx: Transaction, call: Call, page: Page) -> models_pb2.ListReleasesResponse:
    """Releases that the caller may see, newest first."""
    query = select(_RELEASE)
    if AUDITOR not in call.principal.roles:
        query = query.where(_RELEASE.c.team == call.principal.team)
    rows, token = page.split(several(tx.connection, page.apply(query, _RELEASE), ReleaseRow))
    tx.record(call.event("release.list", Subject(KIND, ""), detail={"count": len(rows)}))
    found = [message(tx.connection, call, row) for row in rows]
    return models_pb2.ListReleasesResponse(releases=found, next_page_token=token)


def stored_message(connection: Connection, call: Call, release_id: str) -> models_pb2.Release:
    """A release as it is now."""
    row = find(connection, release_id)
    if row is None:
        raise NotFoundError(KIND)
    return message(connection, call, row)


def public_state(row: ReleaseRow) -> str:
    """The contract's word for a stored state."""
    return QUEUED if row.state == RELEASE_LEASED else row.state


def message(connection: Connection, call: Call, row: ReleaseRow) -> models_pb2.Release:
    """The wrap goes to its recipient alone; nobody else has a use for it."""
    approvals = [Statement.from_bytes(stored) for stored in approval_statements(connection, row.id)]
    release = models_pb2.Release(
        id=row.id,
        model_version=row.model_version,
        team=row.team,
        state=models_pb2.ReleaseState.Value(f"RELEASE_STATE_{public_state(row)}"),
        request=statement_to_proto(Statement.from_bytes(row.request)),
        approvals=[statement_to_proto(statement) for statement in approvals],
        refusal=row.refusal,
        created_at=timestamp(row.created_at),
        approvals_required=row.approvals_required,
        exception=ReleaseRequest.parse(Statement.from_bytes(row.request).payload).exception,
    )
    if row.statement:
        release.statement.CopyFrom(statement_to_proto(Statement.from_bytes(row.statement)))
    if row.wrap and call.principal.id == row.recipient:
        release.wrap.CopyFrom(common_pb2.Wrap(recipient_key_id=row.wrap_key_id, wrap=row.wrap))
    return release
