# SPDX-License-Identifier: Apache-2.0
"""Wraps of a team's objects: handed to its members, and taken from them for new recipients.

Promise: a wrap is ciphertext under a key that the control plane does not have.  It takes wraps for those whom the
roster certifies for the object's pool, and for nobody else but the team's recovery key, which a dataset or base model
is sealed to as well.  The result of a job is not: it gets wraps for hosts alone, from whom it was released to alone,
and the wraps that hosts made of it stay as they are.  A wrong wrap keeps its recipient from opening, and gives nobody
anything.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import delete, insert

from cloister.api.v1 import common_pb2, grants_pb2
from cloister.evidence.canonical import JSON
from cloister.evidence.entry import Subject
from cloister.evidence.manifest import OWNED_KINDS
from cloister.evidence.roster import Roster
from cloister_server.calls import Call
from cloister_server.database import tables
from cloister_server.database.rows import ObjectRow
from cloister_server.database.unit_of_work import Transaction
from cloister_server.errors import EvidenceRejectedError, InvalidFieldError, NotFoundError
from cloister_server.recipients import owned_key_ids, pool_key_ids
from cloister_server.registry import objects
from cloister_server.registry.access import released_to, subject_kind

MAX_WRAPS = 1024
RESULT_KIND = "export"
_GRANT = tables.object_grant


def get(tx: Transaction, call: Call, object_id: str, key_id: str) -> grants_pb2.GetWrapResponse:
    """The wrap of one recipient.  Raises NotFoundError, the same for no object and for no wrap."""
    row = _owned(tx, call, object_id)
    wrap = objects.wrap_of(tx.connection, object_id, key_id)
    if wrap is None:
        raise NotFoundError("object")
    tx.record(call.event("wrap.read", Subject(row.kind, row.id), detail={"recipient": key_id}))
    return grants_pb2.GetWrapResponse(
        sealed=objects.sealed_message(row),
        wrap=common_pb2.Wrap(recipient_key_id=key_id, wrap=wrap),
        recipient_key_ids=objects.recipients(tx.connection, object_id),
    )


def add(
    tx: Transaction, call: Call, object_id: str, offered: Sequence[common_pb2.Wrap], roster: Roster, now: int
) -> list[str]:
    """Add wraps, or replace those of the same recipients; who holds one now.  Of a result none is replaced.

    Raises NotFoundError, InvalidFieldError, EvidenceRejectedError.
    """
    row = _wrappable(tx, call, object_id)
    wraps = objects.read_wraps(offered)
    if not 0 < len(wraps) <= MAX_WRAPS:
        raise InvalidFieldError("wraps", f"give 1 to {MAX_WRAPS} wraps, not {len(wraps)}")
    owned = row.kind in OWNED_KINDS
    allowed = owned_key_ids(roster, row.pool, row.team, now) if owned else pool_key_ids(roster, row.pool, now)
    if foreign := wraps.keys() - allowed:
        recovery = " nor for the team's recovery key" if owned else ""
        raise EvidenceRejectedError(
            "RECIPIENTS",
            f"{row.kind} {row.id}: {len(foreign)} wraps are neither for a certified host of pool {row.pool}{recovery}; "
            "fetch the roster and wrap again",
        )
    connection = tx.connection
    names = sorted(wraps if owned else wraps.keys() - set(objects.recipients(connection, row.id)))
    if not names:
        return objects.recipients(connection, row.id)
    connection.execute(delete(_GRANT).where(_GRANT.c.object_id == row.id, _GRANT.c.recipient_key_id.in_(names)))
    connection.execute(
        insert(_GRANT), [{"object_id": row.id, "recipient_key_id": name, "wrap": wraps[name]} for name in names]
    )
    detail: dict[str, JSON] = {"recipients": list(names)}
    tx.record(call.event("wrap.add", Subject(subject_kind(row), row.id, row.trailer_sha256), detail=detail))
    return objects.recipients(connection, row.id)


def _wrappable(tx: Transaction, call: Call, object_id: str) -> ObjectRow:
    """The same, or the result of a job of the caller's team that was released to the caller, locked."""
    row = objects.find_locked(tx.connection, object_id)
    if row is None or row.kind != RESULT_KIND:
        return _owned(tx, call, object_id)
    call.about("artifact", object_id)
    if row.state == objects.DELETED or row.team != call.principal.team:
        raise NotFoundError("object")
    if not released_to(tx.connection, object_id, call.principal.id):
        raise NotFoundError("object")
    return row


def _owned(tx: Transaction, call: Call, object_id: str) -> ObjectRow:
    """A dataset or base model of the caller's team, locked."""
    call.about("dataset", object_id)
    row = objects.find_locked(tx.connection, object_id)
    gone = row is None or row.state == objects.DELETED
    if row is None or gone or row.kind not in OWNED_KINDS or row.team != call.principal.team:
        raise NotFoundError("object")
    call.about(row.kind, object_id)
    return row
