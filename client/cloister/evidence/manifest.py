# SPDX-License-Identifier: Apache-2.0
"""Manifest and trailer: what a sealed object is, before and after sealing.

The manifest is fixed before a byte is sealed; its SHA-256 is the context that the payload and every wrap are
bound to.  The trailer names that digest and the ciphertext's, and is signed: by the owner for datasets and base
models, by a certified host for checkpoints, results and reports.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from cloister.evidence.canonical import JSON, canonical_bytes
from cloister.evidence.errors import BindingError, ExpiredError, FormatError
from cloister.evidence.fields import Fields
from cloister.evidence.roster import CLOCK_SKEW_SECONDS, Roster, verify_by
from cloister.evidence.signatures import SigningKey, Statement

TRAILER_TYPE = "application/vnd.cloister.trailer+json"
OWNED_KINDS = ("dataset", "model")
HOST_KINDS = ("state", "export", "report")
KINDS = OWNED_KINDS + HOST_KINDS
BUNDLE_MEDIA_TYPE = "application/vnd.cloister.bundle+tar"
ROWS_MEDIA_TYPE = "application/jsonl"


@dataclass(frozen=True)
class Manifest:
    """What is known before sealing.  Times are Unix seconds."""

    kind: str
    id: str
    """Client-made UUID of the sealed object."""
    name: str
    owner: str
    """Person id for datasets and base models, host id for checkpoints, results and reports."""
    team: str
    pool: str
    purposes: tuple[str, ...]
    media_type: str
    created_at: int
    expires_at: int
    minimum_epsilon: str | None = None
    """Largest privacy loss that the owner accepts, a decimal; None asks for no differential privacy."""
    details: dict[str, str] = field(default_factory=dict)
    """For a model: files_sha256, licence, source.  For what a host seals: job_id, attempt, step, files_sha256; for an
    export also layer: its kind (`cloister.evidence.layers`).  For a dataset that appends to another: what
    `cloister.evidence.revisions` says."""

    def to_payload(self) -> bytes:
        details: dict[str, JSON] = dict(self.details)
        return canonical_bytes(
            {
                "type": "manifest",
                "v": 1,
                "kind": self.kind,
                "id": self.id,
                "name": self.name,
                "owner": self.owner,
                "team": self.team,
                "pool": self.pool,
                "purposes": list(self.purposes),
                "media_type": self.media_type,
                "created_at": self.created_at,
                "expires_at": self.expires_at,
                "minimum_epsilon": self.minimum_epsilon,
                "details": details,
            }
        )

    @classmethod
    def parse(cls, payload: bytes) -> Manifest:
        """Raises FormatError."""
        fields = Fields.of_document("manifest", payload)
        manifest = cls(
            kind=fields.text("kind", choices=KINDS),
            id=fields.identifier("id"),
            name=fields.text("name"),
            owner=fields.identifier("owner"),
            team=fields.identifier("team"),
            pool=fields.identifier("pool"),
            purposes=fields.texts("purposes"),
            media_type=fields.text("media_type"),
            created_at=fields.time("created_at"),
            expires_at=fields.time("expires_at"),
            minimum_epsilon=fields.optional("minimum_epsilon", fields.decimal),
            details=_details(fields.object("details")),
        )
        fields.finish()
        return manifest


DETAIL_NAMES = (
    "files_sha256",
    "licence",
    "source",
    "job_id",
    "attempt",
    "step",
    "layer",
    "revision",
    "appends_to",
    "appends_to_sha256",
)


def _details(fields: Fields) -> dict[str, str]:
    return {name: fields.text(name) for name in fields.names(DETAIL_NAMES)}


def context(manifest_payload: bytes) -> bytes:
    """The 32 bytes that bind payload and wraps to the manifest."""
    return hashlib.sha256(manifest_payload).digest()


@dataclass(frozen=True)
class Trailer:
    """What is known after sealing."""

    manifest_sha256: str
    ciphertext_sha256: str
    ciphertext_size: int
    plaintext_size: int
    rows: int | None = None
    """Lines of a dataset; None for a bundle."""

    def to_payload(self) -> bytes:
        return canonical_bytes(
            {
                "type": "trailer",
                "v": 1,
                "manifest_sha256": self.manifest_sha256,
                "ciphertext_sha256": self.ciphertext_sha256,
                "ciphertext_size": self.ciphertext_size,
                "plaintext_size": self.plaintext_size,
                "rows": self.rows,
            }
        )

    @classmethod
    def parse(cls, payload: bytes) -> Trailer:
        """Raises FormatError."""
        fields = Fields.of_document("trailer", payload)
        trailer = cls(
            manifest_sha256=fields.digest("manifest_sha256"),
            ciphertext_sha256=fields.digest("ciphertext_sha256"),
            ciphertext_size=fields.integer("ciphertext_size"),
            plaintext_size=fields.integer("plaintext_size"),
            rows=fields.optional("rows", fields.integer),
        )
        fields.finish()
        return trailer

    def sign(self, key: SigningKey) -> Statement:
        return key.sign(TRAILER_TYPE, self.to_payload())


@dataclass(frozen=True)
class SealedObject:
    """Manifest bytes and signed trailer, as they travel together."""

    manifest: bytes
    trailer: Statement


@dataclass(frozen=True)
class VerifiedObject:
    """A sealed object whose signatures and bindings hold."""

    manifest: Manifest
    trailer: Trailer
    trailer_sha256: str
    context: bytes


def verify_object(sealed: SealedObject, roster: Roster, *, now: int) -> VerifiedObject:
    """Check a sealed object's signature, bindings and expiry against the roster.

    Raises FormatError, BindingError (manifest and trailer disagree), SignatureError, RosterError, ExpiredError.
    """
    manifest = Manifest.parse(sealed.manifest)
    trailer = Trailer.parse(sealed.trailer.payload)
    bound_to = context(sealed.manifest)
    if trailer.manifest_sha256 != bound_to.hex():
        raise BindingError(f"{manifest.kind} {manifest.id}: the trailer was signed for another manifest")
    if manifest.kind in OWNED_KINDS:
        person = roster.person(manifest.owner)
        if person.team != manifest.team:
            raise BindingError(f"{manifest.kind} {manifest.id}: {manifest.owner} is not of team {manifest.team}")
        keys, who = person.signing_keys, f"its owner {manifest.owner}"
    else:
        host = roster.host(manifest.owner)
        keys, who = host.signing_keys, f"host {manifest.owner}"
    verify_by(sealed.trailer, TRAILER_TYPE, keys, who, signed_at=manifest.created_at, now=now)
    if now >= manifest.expires_at + CLOCK_SKEW_SECONDS:
        raise ExpiredError(f"{manifest.kind} {manifest.id} has expired; its owner must seal it again")
    if manifest.expires_at <= manifest.created_at:
        raise FormatError(f"{manifest.kind} {manifest.id}: expires before it was created")
    return VerifiedObject(manifest, trailer, sealed.trailer.digest, bound_to)
