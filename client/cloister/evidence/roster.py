# SPDX-License-Identifier: Apache-2.0
"""The roster: who belongs to the site and with which keys, signed by the offline root.

A roster is versioned and expires.  Clients and key agents pin the root's public key, keep the highest version
they have seen, and refuse an older one: the control plane can withhold a roster but not make or revive one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

from cloister.evidence.canonical import JSON, canonical_bytes
from cloister.evidence.checkpoint import Checkpoint, open_checkpoint
from cloister.evidence.errors import ExpiredError, FormatError, RollbackError, RosterError, SignatureError
from cloister.evidence.fields import Fields
from cloister.evidence.note import NoteVerifier
from cloister.evidence.signatures import Statement, b64, key_id, unb64, verify

if TYPE_CHECKING:
    from collections.abc import Iterable

ROSTER_TYPE = "application/vnd.cloister.roster+json"
ROLES = ("member", "approver", "auditor", "admin")
CLOCK_SKEW_SECONDS = 300
"""Two honest clocks may be this far apart."""


@dataclass(frozen=True)
class KeyRecord:
    """An Ed25519 public key with the time in which it may sign, Unix seconds."""

    public: bytes
    not_before: int
    retired_at: int | None = None

    @property
    def key_id(self) -> str:
        return key_id(self.public)

    def signs_at(self, when: int) -> bool:
        return self.not_before <= when + CLOCK_SKEW_SECONDS and (self.retired_at is None or when < self.retired_at)

    def to_json(self) -> JSON:
        return {"public": b64(self.public), "not_before": self.not_before, "retired_at": self.retired_at}

    @classmethod
    def read(cls, fields: Fields) -> KeyRecord:
        public = unb64(fields.text("public"), "public key")
        if len(public) != 32:
            raise FormatError(f"an Ed25519 public key has 32 bytes, got {len(public)}")
        record = cls(public, fields.time("not_before"), fields.optional("retired_at", fields.time))
        fields.finish()
        return record


@dataclass(frozen=True)
class Person:
    """A member, approver, auditor or admin."""

    id: str
    team: str
    roles: tuple[str, ...]
    signing_keys: tuple[KeyRecord, ...]
    tls_sha256: tuple[str, ...]
    """SHA-256 of the SubjectPublicKeyInfo of every TLS key that this person may present, hex."""
    recipient: str
    """age1pq… key to which models are released."""

    def to_json(self) -> JSON:
        return {
            "id": self.id,
            "team": self.team,
            "roles": list(self.roles),
            "signing_keys": [key.to_json() for key in self.signing_keys],
            "tls_sha256": list(self.tls_sha256),
            "recipient": self.recipient,
        }

    @classmethod
    def read(cls, fields: Fields) -> Person:
        person = cls(
            id=fields.identifier("id"),
            team=fields.identifier("team"),
            roles=fields.texts("roles"),
            signing_keys=tuple(KeyRecord.read(f) for f in fields.objects("signing_keys")),
            tls_sha256=fields.texts("tls_sha256"),
            recipient=fields.text("recipient"),
        )
        fields.finish()
        if unknown := set(person.roles) - set(ROLES):
            raise FormatError(f"roster: person {person.id} has the unknown role {min(unknown)!r}")
        return person


@dataclass(frozen=True)
class Team:
    """A tenant."""

    id: str
    recovery_recipient: str
    """age1pq… key of the team's offline recovery identity."""

    def to_json(self) -> JSON:
        return {"id": self.id, "recovery_recipient": self.recovery_recipient}

    @classmethod
    def read(cls, fields: Fields) -> Team:
        team = cls(fields.identifier("id"), fields.text("recovery_recipient"))
        fields.finish()
        return team


@dataclass(frozen=True)
class Host:
    """A certified worker host: the only kind of machine that opens data."""

    id: str
    pool: str
    signing_keys: tuple[KeyRecord, ...]
    tls_sha256: tuple[str, ...]
    sealing_recipient: str
    retired_at: int | None = None

    def to_json(self) -> JSON:
        return {
            "id": self.id,
            "pool": self.pool,
            "signing_keys": [key.to_json() for key in self.signing_keys],
            "tls_sha256": list(self.tls_sha256),
            "sealing_recipient": self.sealing_recipient,
            "retired_at": self.retired_at,
        }

    @classmethod
    def read(cls, fields: Fields) -> Host:
        host = cls(
            id=fields.identifier("id"),
            pool=fields.identifier("pool"),
            signing_keys=tuple(KeyRecord.read(f) for f in fields.objects("signing_keys")),
            tls_sha256=fields.texts("tls_sha256"),
            sealing_recipient=fields.text("sealing_recipient"),
            retired_at=fields.optional("retired_at", fields.time),
        )
        fields.finish()
        return host


@dataclass(frozen=True)
class Roster:
    """Everybody and everything that the site trusts.  Times are Unix seconds."""

    site: str
    version: int
    issued_at: int
    expires_at: int
    minimum_client_version: str
    log_origin: str
    log_vkey: str
    """C2SP verifier key of the audit log."""
    policy_keys: tuple[KeyRecord, ...]
    people: tuple[Person, ...]
    teams: tuple[Team, ...]
    hosts: tuple[Host, ...]
    log_restored: tuple[str, ...] = ()
    """Signed heads at which the log went on after a restore from a backup, oldest first; `restoration.py`."""

    def to_payload(self) -> bytes:
        log: dict[str, JSON] = {"origin": self.log_origin, "vkey": self.log_vkey}
        if self.log_restored:
            log["restored"] = list(self.log_restored)
        return canonical_bytes(
            {
                "type": "roster",
                "v": 1,
                "site": self.site,
                "version": self.version,
                "issued_at": self.issued_at,
                "expires_at": self.expires_at,
                "minimum_client_version": self.minimum_client_version,
                "log": log,
                "policy_keys": [key.to_json() for key in self.policy_keys],
                "people": [person.to_json() for person in self.people],
                "teams": [team.to_json() for team in self.teams],
                "hosts": [host.to_json() for host in self.hosts],
            }
        )

    @classmethod
    def parse(cls, payload: bytes) -> Roster:
        """Raises FormatError."""
        fields = Fields.of_document("roster", payload)
        log = fields.object("log")
        roster = cls(
            site=fields.identifier("site"),
            version=fields.integer("version", minimum=1),
            issued_at=fields.time("issued_at"),
            expires_at=fields.time("expires_at"),
            minimum_client_version=fields.text("minimum_client_version"),
            log_origin=log.text("origin"),
            log_vkey=log.text("vkey"),
            log_restored=_read_restored(log),
            policy_keys=tuple(KeyRecord.read(f) for f in fields.objects("policy_keys")),
            people=tuple(Person.read(f) for f in fields.objects("people")),
            teams=tuple(Team.read(f) for f in fields.objects("teams")),
            hosts=tuple(Host.read(f) for f in fields.objects("hosts")),
        )
        log.finish()
        fields.finish()
        for kind, ids in (
            ("person", [p.id for p in roster.people]),
            ("team", [t.id for t in roster.teams]),
            ("host", [h.id for h in roster.hosts]),
        ):
            if len(set(ids)) != len(ids):
                raise FormatError(f"roster: a {kind} id is listed twice")
        return roster

    def restored_heads(self) -> tuple[Checkpoint, ...]:
        """The heads of `log_restored`, each signed by the log's key.  Raises FormatError, SignatureError."""
        if not self.log_restored:
            return ()
        verifier = NoteVerifier.parse(self.log_vkey)
        return tuple(open_checkpoint(note.encode("utf-8"), verifier, self.log_origin) for note in self.log_restored)

    def person(self, person_id: str) -> Person:
        """Raises RosterError."""
        return _find("person", person_id, self.people)

    def team(self, team_id: str) -> Team:
        """Raises RosterError."""
        return _find("team", team_id, self.teams)

    def host(self, host_id: str) -> Host:
        """Raises RosterError."""
        return _find("host", host_id, self.hosts)

    def pool_hosts(self, pool: str, now: int) -> tuple[Host, ...]:
        """Certified hosts of a pool that are not retired."""
        return tuple(h for h in self.hosts if h.pool == pool and (h.retired_at is None or now < h.retired_at))


def _read_restored(log: Fields) -> tuple[str, ...]:
    """Left out while the log was never restored, so that one meaning has one form."""
    notes = log.unless_absent("restored", log.texts)
    if notes == ():
        raise FormatError("roster.log: field 'restored' is empty; leave it out")
    return notes or ()


class _HasId(Protocol):
    @property
    def id(self) -> str: ...


_R = TypeVar("_R", bound=_HasId)


def _find(kind: str, wanted: str, records: Iterable[_R]) -> _R:
    for record in records:
        if record.id == wanted:
            return record
    raise RosterError(f"{kind} {wanted!r} is not on the roster")


def verify_roster(statement: Statement, root_public: bytes, *, seen_version: int, now: int) -> Roster:
    """Check a roster against the pinned root.

    Raises SignatureError (not the root's), RollbackError (older than `seen_version`), ExpiredError, FormatError.
    """
    verify(statement, ROSTER_TYPE, {key_id(root_public): root_public}, "the site's root")
    roster = Roster.parse(statement.payload)
    if roster.version < seen_version:
        raise RollbackError(
            f"roster version {roster.version} is older than version {seen_version}, which was seen before: "
            "the control plane may be serving an old roster; tell the root custodian"
        )
    if roster.issued_at > now + CLOCK_SKEW_SECONDS:
        raise ExpiredError("the roster was issued in the future: check this machine's clock")
    if now >= roster.expires_at:
        raise ExpiredError("the roster has expired: the root custodian must sign a newer one")
    roster.restored_heads()
    return roster


def verify_by(
    statement: Statement, payload_type: str, keys: Iterable[KeyRecord], who: str, *, signed_at: int, now: int
) -> None:
    """Check a signature made at `signed_at` by one of a person's, host's or policy's keys.

    A key retired since then still verifies; one retired before it, or not yet in force, does not.
    Raises SignatureError, ExpiredError, FormatError.
    """
    records = {key.key_id: key for key in keys}
    used = verify(statement, payload_type, {k: r.public for k, r in records.items()}, who)
    if signed_at > now + CLOCK_SKEW_SECONDS:
        raise ExpiredError(f"{payload_type}: signed in the future by {who}: check the clocks")
    if not records[used].signs_at(signed_at):
        raise SignatureError(f"{payload_type}: {who} signed with a key that was not in force at that time")
