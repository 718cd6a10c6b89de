# SPDX-License-Identifier: Apache-2.0
"""One entry of the audit log, and its canonical bytes.

The bytes are what the Merkle tree hashes and what an export carries; they are stored and never made again.
`seq` is inside them, so a reordered log shows even without the tree.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from cloister.evidence.canonical import JSON, canonical_bytes
from cloister.evidence.errors import FormatError
from cloister.evidence.fields import Fields

STAGES = ("intent", "outcome")
"""`intent` is written before an effect outside the database, `outcome` for or after everything else."""
MAX_ENTRY_BYTES = 32 * 1024


@dataclass(frozen=True)
class Actor:
    """Who did it: a person, a host, the system itself, or somebody unknown."""

    id: str
    kind: str
    """person, host, enrolment (the holder of a token), system or unknown."""
    cert_sha256: str = ""
    """SHA-256 of the TLS public key that was presented, hex."""

    def to_json(self) -> JSON:
        return {"id": self.id, "kind": self.kind, "cert_sha256": self.cert_sha256}

    @classmethod
    def read(cls, fields: Fields) -> Actor:
        actor = cls(fields.text("id"), fields.text("kind"), fields.text("cert_sha256"))
        fields.finish()
        return actor


@dataclass(frozen=True)
class Subject:
    """What it was done to."""

    type: str
    """dataset, job, model, release, artifact, roster, policy, log, backup, host, site, team, session, certificate,
    token or method."""
    id: str
    digest: str = ""

    def to_json(self) -> JSON:
        return {"type": self.type, "id": self.id, "digest": self.digest}

    @classmethod
    def read(cls, fields: Fields) -> Subject:
        subject = cls(fields.text("type"), fields.text("id"), fields.text("digest"))
        fields.finish()
        return subject


@dataclass(frozen=True)
class Event:
    """An entry before the log has given it a place."""

    action: str
    """From the closed catalogue of docs/reference/audit-events.md, for example "job.submit"."""
    actor: Actor
    object: Subject
    outcome: str = "ok"
    """"ok", "denied" or "failed"."""
    stage: str = "outcome"
    reason: str = ""
    """Error reason where the outcome is not "ok"."""
    corr_id: str = ""
    """Correlation id of the call."""
    detail: dict[str, JSON] = field(default_factory=dict)
    """Figures, digests and fixed words; never content, never names of rows or labels."""


@dataclass(frozen=True)
class Entry:
    """An event with its place in the log."""

    seq: int
    ts: int
    """Microseconds since 1970, UTC, by the control plane's clock."""
    event: Event

    def to_bytes(self) -> bytes:
        """Canonical bytes.  Raises FormatError when they are longer than the log takes."""
        event = self.event
        data = canonical_bytes(
            {
                "v": 1,
                "seq": self.seq,
                "ts": self.ts,
                "action": event.action,
                "stage": event.stage,
                "outcome": event.outcome,
                "reason": event.reason,
                "actor": event.actor.to_json(),
                "object": event.object.to_json(),
                "corr_id": event.corr_id,
                "detail": event.detail,
            }
        )
        if len(data) > MAX_ENTRY_BYTES:
            raise FormatError(f"an audit entry has at most {MAX_ENTRY_BYTES} bytes, this one has {len(data)}")
        return data

    @classmethod
    def parse(cls, data: bytes) -> Entry:
        """Raises FormatError."""
        fields = Fields.of_bytes("entry", data)
        if (version := fields.integer("v")) != 1:
            raise FormatError(f"entry: version {version} is not known here; update this software")
        entry = cls(
            seq=fields.integer("seq"),
            ts=fields.integer("ts"),
            event=Event(
                action=fields.text("action"),
                stage=fields.text("stage", choices=STAGES),
                outcome=fields.text("outcome", choices=("ok", "denied", "failed")),
                reason=fields.text("reason"),
                actor=Actor.read(fields.object("actor")),
                object=Subject.read(fields.object("object")),
                corr_id=fields.text("corr_id"),
                detail=fields.table("detail"),
            ),
        )
        fields.finish()
        return entry
