# SPDX-License-Identifier: Apache-2.0
"""Model versions: base models that members import, and candidates that jobs make."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from sqlalchemy import Connection, Select, insert, select

from cloister.api.v1 import models_pb2
from cloister.evidence.entry import Subject
from cloister.evidence.fields import HEX_DIGEST
from cloister.evidence.layers import is_weights
from cloister.evidence.manifest import BUNDLE_MEDIA_TYPE, Manifest
from cloister.evidence.roster import Roster
from cloister.evidence.signatures import Statement
from cloister.wire import statement_to_proto
from cloister_server.calls import AUDITOR, Call
from cloister_server.database import tables
from cloister_server.database.engine import now_ms
from cloister_server.database.rows import VersionRow, figures, one, several, to_text
from cloister_server.database.unit_of_work import Transaction
from cloister_server.errors import InvalidFieldError, NotFoundError
from cloister_server.operations import maintenance, quotas
from cloister_server.pages import Page, timestamp
from cloister_server.recipients import owned_key_ids
from cloister_server.registry import objects
from cloister_server.registry.datasets import check_owned

KIND = "model"
_PREFIX = "LAYER_KIND_"
_VERSION = tables.model_version
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def create(
    tx: Transaction, call: Call, request: models_pb2.CreateModelVersionRequest, roster: Roster, now: int
) -> models_pb2.ModelVersion:
    """Register a base model, or return it where the very same one is registered already."""
    offered = objects.read_offer(request.sealed, request.wraps, roster, now=now)
    manifest = offered.manifest
    call.about(KIND, manifest.id)
    check_owned(call, manifest, KIND)
    _check_manifest(manifest)
    if objects.find(tx.connection, manifest.id) is None:
        maintenance.check_open(tx.connection)
        quotas.check_store(tx, manifest.team, offered.trailer.ciphertext_size)
        objects.check_recipients(offered, owned_key_ids(roster, manifest.pool, manifest.team, now))
    if objects.register(tx, offered):
        _insert_base(tx.connection, manifest)
        detail = {"size": offered.trailer.ciphertext_size, "recipients": len(offered.wraps)}
        subject = Subject(KIND, manifest.id, offered.verified.trailer_sha256)
        tx.record(call.event("model.create", subject, detail=detail))
    row = find(tx.connection, manifest.id)
    if row is None:
        raise NotFoundError(KIND)
    return message(tx.connection, row)


def _check_manifest(manifest: Manifest) -> None:
    if manifest.media_type != BUNDLE_MEDIA_TYPE:
        raise InvalidFieldError("sealed.manifest", f"a model has the media type {BUNDLE_MEDIA_TYPE}")
    if not _NAME.fullmatch(manifest.name):
        raise InvalidFieldError("sealed.manifest", "a model's name has at most 128 of A-Z, a-z, 0-9, '.', '_', '-'")
    if not HEX_DIGEST.fullmatch(manifest.details.get("files_sha256", "")):
        raise InvalidFieldError("sealed.manifest", "a model names the digest of its file list (files_sha256)")


def _insert_base(connection: Connection, manifest: Manifest) -> None:
    connection.execute(
        insert(_VERSION).values(
            id=manifest.id,
            name=manifest.name,
            team=manifest.team,
            state=objects.UPLOADING,
            object_id=manifest.id,
            base="",
            base_digest=manifest.details["files_sha256"],
            layers="[]",
            job_id="",
            spec_digest="",
            dataset_digests="[]",
            seed="0",
            metrics_before="",
            metrics_after="",
            epsilon=None,
            result=b"",
            licence=manifest.details.get("licence", ""),
            source=manifest.details.get("source", ""),
            created_at=now_ms(connection),
        )
    )


def get(tx: Transaction, call: Call, id_or_name: str) -> models_pb2.ModelVersion:
    """One version by id, or the newest of a name.  Raises NotFoundError."""
    call.about(KIND, id_or_name)
    query = select(_VERSION).where((_VERSION.c.id == id_or_name) | (_VERSION.c.name == id_or_name))
    query = _visible_to(call, query).order_by((_VERSION.c.id == id_or_name).desc(), _VERSION.c.created_at.desc())
    row = one(tx.connection, query.limit(1), VersionRow)
    if row is None:
        raise NotFoundError(KIND)
    tx.record(call.event("model.read", Subject(KIND, row.id)))
    return message(tx.connection, row)


def list_page(tx: Transaction, call: Call, page: Page) -> models_pb2.ListModelVersionsResponse:
    """Versions that the caller may see, newest first."""
    query = page.apply(_visible_to(call, select(_VERSION)), _VERSION)
    rows, token = page.split(several(tx.connection, query, VersionRow))
    tx.record(call.event("model.list", Subject(KIND, ""), detail={"count": len(rows)}))
    found = [message(tx.connection, row) for row in rows]
    return models_pb2.ListModelVersionsResponse(versions=found, next_page_token=token)


def _visible_to(call: Call, query: Select[Any]) -> Select[Any]:
    if AUDITOR in call.principal.roles:
        return query
    return query.where(_VERSION.c.team == call.principal.team)


def find(connection: Connection, version_id: str) -> VersionRow | None:
    """A version's row, or None."""
    return one(connection, select(_VERSION).where(_VERSION.c.id == version_id), VersionRow)


def layers_of(row: VersionRow) -> list[tuple[str, tuple[str, str]]]:
    """Kind, object id and file list's digest of a version's layers, in order."""
    return [(kind.removeprefix(_PREFIX).lower(), (oid, digest)) for kind, oid, digest in json.loads(row.layers)]


def layers_text(layers: Iterable[tuple[str, tuple[str, str]]]) -> str:
    """Inverse of `layers_of`, as it is stored."""
    return to_text([[_PREFIX + kind.upper(), *place] for kind, place in layers])


def layer_objects(row: VersionRow, *, weights_only: bool = False) -> list[str]:
    """Object ids of a version's layers, in order; or of the one with its weights alone."""
    return [object_id for kind, (object_id, _) in layers_of(row) if is_weights(kind) or not weights_only]


def _layer(connection: Connection, kind: str, object_id: str, digest: str) -> models_pb2.Layer:
    row = objects.find(connection, object_id)
    sealed = None if row is None else objects.sealed_message(row)
    number = models_pb2.LayerKind.Value(_PREFIX + kind.upper())
    return models_pb2.Layer(kind=number, object_id=object_id, digest=digest, sealed=sealed)


def message(connection: Connection, row: VersionRow) -> models_pb2.ModelVersion:
    """The version of the contract."""
    sealed = objects.find(connection, row.object_id)
    if sealed is None:
        raise NotFoundError(KIND)
    layers = [_layer(connection, kind, *place) for kind, place in layers_of(row)]
    return models_pb2.ModelVersion(
        id=row.id,
        name=row.name,
        team=row.team,
        state=models_pb2.ModelVersionState.Value(f"MODEL_VERSION_STATE_{row.state}"),
        created_at=timestamp(row.created_at),
        base=row.base,
        base_digest=row.base_digest,
        layers=layers,
        dossier=_dossier(row),
        sealed=objects.sealed_message(sealed),
        size=sealed.size,
        recipient_key_ids=objects.recipients(connection, row.object_id),
    )


def _dossier(row: VersionRow) -> models_pb2.Dossier:
    dossier = models_pb2.Dossier(
        job_id=row.job_id,
        spec_digest=row.spec_digest,
        dataset_digests=json.loads(row.dataset_digests),
        seed=int(row.seed),
        metrics_before=figures(row.metrics_before),
        metrics_after=figures(row.metrics_after),
        licence=row.licence,
        source=row.source,
    )
    if row.epsilon is not None:
        dossier.epsilon = row.epsilon
    if row.result:
        dossier.result.CopyFrom(statement_to_proto(Statement.from_bytes(row.result)))
    return dossier
