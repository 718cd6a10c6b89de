# SPDX-License-Identifier: Apache-2.0
"""Sealed objects of every kind: what was registered, who holds a wrap, how far the blob is.

Promise: nothing here can open anything.  The checks give early errors; what decides is what key agents verify.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import Connection, delete, insert, select, update

from cloister.api.v1 import common_pb2
from cloister.evidence.errors import EvidenceError
from cloister.evidence.manifest import Manifest, SealedObject, Trailer, VerifiedObject, verify_object
from cloister.evidence.roster import Roster
from cloister.evidence.signatures import Statement
from cloister.wire import sealed_from_proto, statement_to_proto
from cloister_server.database import tables
from cloister_server.database.engine import now_ms
from cloister_server.database.rows import ObjectRow, one, several
from cloister_server.database.unit_of_work import Transaction
from cloister_server.errors import EvidenceRejectedError, IdConflictError, InvalidFieldError, of_evidence
from cloister_server.recipients import WRAP_SIZE
from cloister_server.store import Declared

UPLOADING = "UPLOADING"
READY = "READY"
DELETED = "DELETED"

_OBJECT = tables.sealed_object
_GRANT = tables.object_grant
_MAX_BLOB = 1 << 44


@dataclass(frozen=True)
class Offered:
    """A sealed object as a caller offers it, verified."""

    sealed: SealedObject
    verified: VerifiedObject
    wraps: dict[str, bytes]
    """Recipient key id to wrap."""

    @property
    def manifest(self) -> Manifest:
        return self.verified.manifest

    @property
    def trailer(self) -> Trailer:
        return self.verified.trailer


def read_offer(
    message: common_pb2.SealedObject, wraps: Iterable[common_pb2.Wrap], roster: Roster, *, now: int
) -> Offered:
    """Verify an offered object.  Raises EvidenceRejectedError, InvalidFieldError."""
    sealed = sealed_from_proto(message)
    try:
        verified = verify_object(sealed, roster, now=now)
    except EvidenceError as error:
        raise of_evidence(error) from error
    if not 0 < verified.trailer.ciphertext_size <= _MAX_BLOB:
        raise InvalidFieldError("sealed.trailer", f"{verified.trailer.ciphertext_size} is not a size of a sealed file")
    return Offered(sealed, verified, read_wraps(wraps))


def read_wraps(wraps: Iterable[common_pb2.Wrap]) -> dict[str, bytes]:
    """Recipient key id to wrap, each of the right size and named once.  Raises InvalidFieldError."""
    found: dict[str, bytes] = {}
    for wrap in wraps:
        if len(wrap.wrap) != WRAP_SIZE:
            raise InvalidFieldError("wraps", f"a wrap has {WRAP_SIZE} bytes, got {len(wrap.wrap)}")
        if wrap.recipient_key_id in found:
            raise InvalidFieldError("wraps", "a recipient is named twice")
        found[wrap.recipient_key_id] = wrap.wrap
    return found


def check_recipients(offered: Offered, wanted: frozenset[str]) -> None:
    """A wrap too few would lose data, one too many would leak it.  Raises EvidenceRejectedError."""
    missing, foreign = wanted - offered.wraps.keys(), offered.wraps.keys() - wanted
    if missing or foreign:
        raise EvidenceRejectedError(
            "RECIPIENTS",
            f"{offered.manifest.kind} {offered.manifest.id}: {len(missing)} recipients of the roster have no wrap and "
            f"{len(foreign)} wraps are for nobody on it; fetch the roster and seal again",
        )


def register(tx: Transaction, offered: Offered) -> bool:
    """Insert the object and its wraps; False where the very same object is registered already.

    Raises IdConflictError.
    """
    manifest, trailer = offered.manifest, offered.trailer
    stored = find(tx.connection, manifest.id)
    if stored is not None:
        if (stored.manifest, stored.trailer_sha256) != (offered.sealed.manifest, offered.verified.trailer_sha256):
            raise IdConflictError(f"{manifest.kind} id {manifest.id} is in use for something else; make a new id")
        return False
    tx.connection.execute(
        insert(_OBJECT).values(
            id=manifest.id,
            kind=manifest.kind,
            team=manifest.team,
            owner=manifest.owner,
            pool=manifest.pool,
            state=UPLOADING,
            manifest=offered.sealed.manifest,
            trailer=offered.sealed.trailer.to_bytes(),
            trailer_sha256=offered.verified.trailer_sha256,
            ciphertext_sha256=trailer.ciphertext_sha256,
            size=trailer.ciphertext_size,
            created_at=now_ms(tx.connection),
            expires_at_s=manifest.expires_at,
        )
    )
    rows = [{"object_id": manifest.id, "recipient_key_id": k, "wrap": w} for k, w in sorted(offered.wraps.items())]
    tx.connection.execute(insert(_GRANT), rows)
    return True


def find(connection: Connection, object_id: str) -> ObjectRow | None:
    """An object's row, or None."""
    return one(connection, select(_OBJECT).where(_OBJECT.c.id == object_id), ObjectRow)


def find_locked(connection: Connection, object_id: str) -> ObjectRow | None:
    """The same, locked until the transaction ends."""
    return one(connection, select(_OBJECT).where(_OBJECT.c.id == object_id).with_for_update(), ObjectRow)


def uploading(connection: Connection) -> list[ObjectRow]:
    """Every object whose blob is not recorded as complete."""
    return several(connection, select(_OBJECT).where(_OBJECT.c.state == UPLOADING), ObjectRow)


def declared(row: ObjectRow) -> Declared:
    """What the store needs to know of an object."""
    return Declared(row.id, row.ciphertext_sha256, row.size)


def set_state(connection: Connection, object_id: str, state: str) -> None:
    """Put an object into a state."""
    connection.execute(update(_OBJECT).where(_OBJECT.c.id == object_id).values(state=state))


def destroy(tx: Transaction, row: ObjectRow) -> None:
    """Delete every wrap of an object, so that nobody can open it any more, and then its bytes.

    The caller writes the entry.
    """
    tx.connection.execute(delete(_GRANT).where(_GRANT.c.object_id == row.id))
    set_state(tx.connection, row.id, DELETED)
    tx.discard(declared(row))


def recipients(connection: Connection, object_id: str) -> list[str]:
    """Key ids that hold a wrap."""
    query = select(_GRANT.c.recipient_key_id).where(_GRANT.c.object_id == object_id)
    return list(connection.execute(query.order_by(_GRANT.c.recipient_key_id)).scalars())


def wrap_of(connection: Connection, object_id: str, key_id: str) -> bytes | None:
    """The wrap for one recipient, or None."""
    query = select(_GRANT.c.wrap).where(_GRANT.c.object_id == object_id, _GRANT.c.recipient_key_id == key_id)
    found: bytes | None = connection.execute(query).scalar_one_or_none()
    return found


def sealed_message(row: ObjectRow) -> common_pb2.SealedObject:
    """Manifest and trailer as they travel."""
    trailer = statement_to_proto(Statement.from_bytes(row.trailer))
    return common_pb2.SealedObject(manifest=row.manifest, trailer=trailer)
