# SPDX-License-Identifier: Apache-2.0
"""Who may move which ciphertext.

A member writes and reads the datasets and base models of their team, and reads a result only once it was
released to them in person; reports of their team's jobs they read at any time.  A host writes what it registered
under a lease that it holds, and reads what such a lease grants.  Everything else is NOT_FOUND, in the same words as
what does not exist.
"""

from __future__ import annotations

from sqlalchemy import Connection, select

from cloister.evidence.manifest import OWNED_KINDS
from cloister_server.calls import Call
from cloister_server.database import tables
from cloister_server.database.rows import ArtifactRow, ObjectRow, one
from cloister_server.errors import BlobIncompleteError, InvalidFieldError, LeaseLostError, NotFoundError
from cloister_server.queue.fence import held_job, lease_covers
from cloister_server.queue.states import GRANTED
from cloister_server.registry import objects

_ENTRY_KINDS = {"dataset": "dataset", "model": "model", "state": "artifact", "export": "artifact", "report": "artifact"}


def subject_kind(row: ObjectRow) -> str:
    """How the log calls an object of this kind."""
    return _ENTRY_KINDS[row.kind]


def find_artifact(connection: Connection, object_id: str) -> ArtifactRow | None:
    """An artifact's row, or None."""
    return one(connection, select(tables.artifact).where(tables.artifact.c.object_id == object_id), ArtifactRow)


def writable(connection: Connection, call: Call, object_id: str, attempt: int) -> ObjectRow:
    """The object, if the caller may upload its blob now.  Raises NotFoundError, LeaseLostError."""
    row = _declared_by_caller(connection, call, object_id)
    if call.principal.kind == "host":
        artifact = find_artifact(connection, object_id)
        if artifact is None:
            raise NotFoundError("object")
        if artifact.attempt != attempt:
            raise InvalidFieldError("attempt", f"the object was registered by attempt {artifact.attempt}")
        held_job(connection, artifact.job_id, call.principal.id, attempt)
    return row


def still_held(connection: Connection, row: ObjectRow) -> bool:
    """Whether an upload may still end: a person's always, a host's while the attempt that began it runs."""
    if row.kind in OWNED_KINDS:
        return True
    artifact = find_artifact(connection, row.id)
    if artifact is None:
        return False
    try:
        held_job(connection, artifact.job_id, row.owner, artifact.attempt)
    except LeaseLostError:
        return False
    return True


def watchable(connection: Connection, call: Call, object_id: str) -> ObjectRow:
    """The object, if the caller may ask how far its upload is."""
    return _declared_by_caller(connection, call, object_id)


def _declared_by_caller(connection: Connection, call: Call, object_id: str) -> ObjectRow:
    call.about("artifact" if call.principal.kind == "host" else "dataset", object_id)
    row = objects.find(connection, object_id)
    if row is None or row.state == objects.DELETED:
        raise NotFoundError("object")
    call.about(subject_kind(row), object_id)
    if row.kind in OWNED_KINDS:
        if call.principal.kind != "person" or call.principal.team != row.team:
            raise NotFoundError("object")
    elif call.principal.kind != "host" or call.principal.id != row.owner:
        raise NotFoundError("object")
    return row


def readable(connection: Connection, call: Call, object_id: str) -> ObjectRow:
    """The object, if the caller may read its blob.  Raises NotFoundError, BlobIncompleteError."""
    call.about("dataset", object_id)
    row = objects.find(connection, object_id)
    if row is None or row.state == objects.DELETED or not _may_read(connection, call, row):
        raise NotFoundError("object")
    call.about(subject_kind(row), object_id)
    if row.state != objects.READY:
        raise BlobIncompleteError("the object's blob is not uploaded yet")
    return row


def _may_read(connection: Connection, call: Call, row: ObjectRow) -> bool:
    if call.principal.kind == "host":
        return lease_covers(connection, call.principal.id, row.id)
    if row.team != call.principal.team:
        return False
    if row.kind == "export":
        return released_to(connection, row.id, call.principal.id)
    return row.kind in OWNED_KINDS or row.kind == "report"


def released_to(connection: Connection, object_id: str, person: str) -> bool:
    """Whether the result in an object was released to a person."""
    release, version = tables.release, tables.model_version
    query = (
        select(release.c.id)
        .join(version, version.c.id == release.c.model_version)
        .where(version.c.object_id == object_id, release.c.recipient == person, release.c.state == GRANTED)
    )
    return connection.execute(query.limit(1)).first() is not None
