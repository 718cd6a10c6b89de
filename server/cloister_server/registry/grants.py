# SPDX-License-Identifier: Apache-2.0
"""Wraps of a team's datasets and base models: handed to its members, and taken from them for new recipients.

Promise: a wrap is ciphertext under a key that the control plane does not have.  It takes wraps for those whom the
roster certifies for the object's pool, and for the team's recovery key, and for nobody else.  A wrong wrap keeps its
recipient from opening, and gives nobody anything.
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
from cloister_server.recipients import owned_key_ids
from cloister_server.registry import objects

MAX_WRAPS = 1024
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
    """Add wraps, or replace those of the same recipients; who holds one now.

    Raises NotFoundError, InvalidFieldError, EvidenceRejectedError.
    """
    row = _owned(tx, call, object_id)
    wraps = objects.read_wraps(offered)
    if not 0 < len(wraps) <= MAX_WRAPS:
        raise InvalidFieldError("wraps", f"give 1 to {MAX_WRAPS} wraps, not {len(wraps)}")
    if foreign := wraps.keys() - owned_key_ids(roster, row.pool, row.team, now):
        raise EvidenceRejectedError(
            "RECIPIENTS",
            f"{row.kind} {row.id}: {len(foreign)} wraps are neither for a certified host of pool {row.pool} nor for "
            "the team's recovery key; fetch the roster and wrap again",
        )
    connection, names = tx.connection, sorted(wraps)
    connection.execute(delete(_GRANT).where(_GRANT.c.object_id == row.id, _GRANT.c.recipient_key_id.in_(names)))
    connection.execute(
        insert(_GRANT), [{"object_id": row.id, "recipient_key_id": name, "wrap": wraps[name]} for name in names]
    )
    detail: dict[str, JSON] = {"recipients": list(names)}
    tx.record(call.event("wrap.add", Subject(row.kind, row.id, row.trailer_sha256), detail=detail))
    return objects.recipients(connection, row.id)


def _owned(tx: Transaction, call: Call, object_id: str) -> ObjectRow:
    """A dataset or base model of the caller's team, locked."""
    call.about("dataset", object_id)
    row = objects.find_locked(tx.connection, object_id)
    gone = row is None or row.state == objects.DELETED
    if row is None or gone or row.kind not in OWNED_KINDS or row.team != call.principal.team:
        raise NotFoundError("object")
    call.about(row.kind, object_id)
    return row
