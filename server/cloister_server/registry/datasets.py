# SPDX-License-Identifier: Apache-2.0
"""Sealed datasets of a team."""

from __future__ import annotations

from sqlalchemy import Connection, select

from cloister.api.v1 import datasets_pb2
from cloister.evidence.entry import Subject
from cloister.evidence.errors import FormatError
from cloister.evidence.manifest import ROWS_MEDIA_TYPE, Manifest
from cloister.evidence.revisions import revision_of
from cloister.evidence.roster import Roster
from cloister_server.calls import AUDITOR, Call
from cloister_server.database import tables
from cloister_server.database.rows import ObjectRow, several
from cloister_server.database.unit_of_work import Transaction
from cloister_server.errors import EvidenceRejectedError, InvalidFieldError, NotFoundError, WrongStateError
from cloister_server.operations import maintenance, quotas
from cloister_server.pages import Page, timestamp
from cloister_server.queue.states import ENDED
from cloister_server.recipients import owned_key_ids
from cloister_server.registry import objects

KIND = "dataset"


def create(
    tx: Transaction, call: Call, request: datasets_pb2.CreateDatasetRequest, roster: Roster, now: int
) -> datasets_pb2.Dataset:
    """Register a dataset, or return it where the very same one is registered already."""
    offered = objects.read_offer(request.sealed, request.wraps, roster, now=now)
    manifest = offered.manifest
    call.about(KIND, manifest.id)
    check_owned(call, manifest, KIND)
    if manifest.media_type != ROWS_MEDIA_TYPE:
        raise InvalidFieldError("sealed.manifest", f"a dataset has the media type {ROWS_MEDIA_TYPE}")
    if not manifest.purposes:
        raise InvalidFieldError("sealed.manifest", "a dataset allows at least one purpose")
    stored = objects.find(tx.connection, manifest.id)
    if stored is None:
        maintenance.check_open(tx.connection)
        quotas.check_store(tx, manifest.team, offered.trailer.ciphertext_size)
        _check_revision(tx.connection, manifest)
        objects.check_recipients(offered, owned_key_ids(roster, manifest.pool, manifest.team, now))
    if objects.register(tx, offered):
        detail = {"size": offered.trailer.ciphertext_size, "recipients": len(offered.wraps)}
        subject = Subject(KIND, manifest.id, offered.verified.trailer_sha256)
        tx.record(call.event("dataset.create", subject, detail=detail))
    return message(tx.connection, _existing(tx.connection, manifest.id))


def check_owned(call: Call, manifest: Manifest, kind: str) -> None:
    """What a person registers is their own, of this kind.  Raises InvalidFieldError, EvidenceRejectedError."""
    if manifest.kind != kind:
        raise InvalidFieldError("sealed.manifest", f"expected kind {kind}, got {manifest.kind}")
    if manifest.owner != call.principal.id:
        raise EvidenceRejectedError("BINDING", f"{kind} {manifest.id} is signed by {manifest.owner}, not by the caller")


def _check_revision(connection: Connection, manifest: Manifest) -> None:
    """A revision goes on from a dataset of its team that nothing else goes on from: the chain of a name has no forks.

    The row of the earlier one is locked, so of two that append at once one is refused.  Raises InvalidFieldError,
    NotFoundError, WrongStateError.
    """
    try:
        said = revision_of(manifest)
    except FormatError as error:
        raise InvalidFieldError("sealed.manifest", str(error)) from error
    if not said.earlier_id:
        return
    earlier = objects.find_locked(connection, said.earlier_id)
    if earlier is None or earlier.kind != KIND or earlier.team != manifest.team:
        raise NotFoundError(KIND)
    if (earlier.trailer_sha256, Manifest.parse(earlier.manifest).name) != (said.earlier_sha256, manifest.name):
        raise InvalidFieldError("sealed.manifest", "the dataset that it appends to has another trailer or name")
    table = tables.sealed_object
    rival = select(table).where(table.c.kind == KIND, table.c.team == manifest.team, table.c.state != objects.DELETED)
    for row in several(connection, rival, ObjectRow):
        if revision_of(Manifest.parse(row.manifest)).earlier_id == earlier.id:
            raise WrongStateError(
                f"dataset {row.id} is appended to {earlier.id} already; append to the newest revision, or delete that "
                "one first",
                state="appended",
            )


def get(tx: Transaction, call: Call, dataset_id: str) -> datasets_pb2.Dataset:
    """One dataset.  Raises NotFoundError."""
    row = _visible(tx.connection, call, dataset_id)
    tx.record(call.event("dataset.read", Subject(KIND, row.id)))
    return message(tx.connection, row)


def list_page(tx: Transaction, call: Call, page: Page) -> datasets_pb2.ListDatasetsResponse:
    """Datasets that the caller may see, newest first."""
    table = tables.sealed_object
    query = select(table).where(table.c.kind == KIND)
    if AUDITOR not in call.principal.roles:
        query = query.where(table.c.team == call.principal.team)
    rows, token = page.split(several(tx.connection, page.apply(query, table), ObjectRow))
    tx.record(call.event("dataset.list", Subject(KIND, ""), detail={"count": len(rows)}))
    found = [message(tx.connection, row) for row in rows]
    return datasets_pb2.ListDatasetsResponse(datasets=found, next_page_token=token)


def delete(tx: Transaction, call: Call, dataset_id: str) -> datasets_pb2.Dataset:
    """Wraps first, in the transaction; the bytes go once that is durable, recovery removes what was missed."""
    call.about(KIND, dataset_id)
    row = objects.find_locked(tx.connection, dataset_id)
    if row is None or row.kind != KIND or row.team != call.principal.team:
        raise NotFoundError(KIND)
    if row.state != objects.DELETED:
        if _waiting_jobs(tx.connection, dataset_id):
            raise WrongStateError("a job that has not ended uses this dataset; cancel it first", state="in_use")
        objects.destroy(tx, row)
        tx.record(call.event("dataset.delete", Subject(KIND, dataset_id, row.trailer_sha256)))
    return message(tx.connection, _existing(tx.connection, dataset_id))


def _waiting_jobs(connection: Connection, dataset_id: str) -> bool:
    job, job_input = tables.job, tables.job_input
    query = (
        select(job.c.id)
        .join(job_input, job_input.c.job_id == job.c.id)
        .where(job_input.c.object_id == dataset_id, job.c.state.not_in(ENDED))
    )
    return connection.execute(query.limit(1)).first() is not None


def _visible(connection: Connection, call: Call, dataset_id: str) -> ObjectRow:
    call.about(KIND, dataset_id)
    row = objects.find(connection, dataset_id)
    if row is None or row.kind != KIND or not call.principal.may_see(row.team):
        raise NotFoundError(KIND)
    return row


def _existing(connection: Connection, dataset_id: str) -> ObjectRow:
    row = objects.find(connection, dataset_id)
    if row is None:
        raise NotFoundError(KIND)
    return row


def message(connection: Connection, row: ObjectRow) -> datasets_pb2.Dataset:
    """The dataset of the contract."""
    manifest = Manifest.parse(row.manifest)
    return datasets_pb2.Dataset(
        id=row.id,
        owner=row.owner,
        team=row.team,
        state=datasets_pb2.DatasetState.Value(f"DATASET_STATE_{row.state}"),
        created_at=timestamp(row.created_at),
        expires_at=timestamp(row.expires_at_s * 1000),
        purposes=manifest.purposes,
        size=row.size,
        ciphertext_sha256=row.ciphertext_sha256,
        sealed=objects.sealed_message(row),
        recipient_key_ids=objects.recipients(connection, row.id),
    )
