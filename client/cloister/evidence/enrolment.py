# SPDX-License-Identifier: Apache-2.0
"""Enrolment with a one-time token: the three signed documents that carry new keys to the offline root.

(1) An admin signs the *enrolment token*: which person or worker host may enrol, until when, and the public half of the
token's key.  (2) The holder signs the *enrolment claim* with that key: the public keys that were made on their own
machine.  (3) The root signs the *welcome*: the place on the roster, the site's certificate authority, the certificate.

The control plane carries all three and can make none of them, so it can put neither a key of its own on the roster
nor another root on the holder's machine.  The token's secret never travels: `cloister.enrolment_token` derives
its keys.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from cloister.evidence.canonical import JSON, canonical_bytes
from cloister.evidence.errors import BindingError, ExpiredError, FormatError, RosterError
from cloister.evidence.fields import Fields
from cloister.evidence.roster import CLOCK_SKEW_SECONDS, ROLES, SERVICE_ROLES, Host, Person, Roster, verify_by
from cloister.evidence.signatures import Statement, b64, key_id, unb64, verify

TOKEN_TYPE = "application/vnd.cloister.enrolment-token+json"  # noqa: S105 (a media type, not a secret)
CLAIM_TYPE = "application/vnd.cloister.enrolment-claim+json"
WELCOME_TYPE = "application/vnd.cloister.welcome+json"
MAX_LIFETIME_SECONDS = 30 * 24 * 3600
"""A token may be claimed for at most so long."""
COLLECT_SECONDS = 30 * 24 * 3600
"""A claim that was made in time may be collected for so long after the token's expiry."""
ADMIN = "admin"
PERSON, HOST = "person", "host"
"""What may enrol."""


@dataclass(frozen=True)
class IssuedToken:
    """What an admin signs; the secret is not in it.  Times are Unix seconds."""

    site: str
    issuer: str
    """Person id of the admin."""
    person: str
    """Empty, like team and roles, in a token for a host."""
    team: str
    roles: tuple[str, ...]
    root_sha256: str
    """SHA-256 of the raw public key of the root that the token pins."""
    server_sha256: str
    """SHA-256 of the SubjectPublicKeyInfo of the control plane's TLS key that the token pins."""
    public: bytes
    """Raw Ed25519 public key that must have signed the claim."""
    tls_sha256: str
    """SHA-256 of the SubjectPublicKeyInfo with which the claim is sent."""
    created_at: int
    expires_at: int
    service: bool = False
    """For an account of a pipeline."""
    host: str = ""
    """Id of the worker host, in a token for one."""
    pool: str = ""

    @property
    def kind(self) -> str:
        """PERSON or HOST."""
        return HOST if self.host else PERSON

    @property
    def holder(self) -> str:
        """Id of the person or host."""
        return self.host or self.person

    @property
    def id(self) -> str:
        """Names the token everywhere: the id of its signing key."""
        return key_id(self.public)

    def to_payload(self) -> bytes:
        service: dict[str, JSON] = {"service": True} if self.service else {}
        person: dict[str, JSON] = {"person": self.person, "team": self.team, "roles": list(self.roles), **service}
        host: dict[str, JSON] = {"host": self.host, "pool": self.pool}
        return canonical_bytes(
            {
                **(host if self.host else person),
                "type": "enrolment-token",
                "v": 1,
                "site": self.site,
                "issuer": self.issuer,
                "root_sha256": self.root_sha256,
                "server_sha256": self.server_sha256,
                "public": b64(self.public),
                "tls_sha256": self.tls_sha256,
                "created_at": self.created_at,
                "expires_at": self.expires_at,
            }
        )

    @classmethod
    def parse(cls, payload: bytes) -> IssuedToken:
        """Raises FormatError."""
        fields = Fields.of_document("enrolment-token", payload)
        host = fields.unless_absent("host", fields.identifier) or ""
        token = cls(
            site=fields.identifier("site"),
            issuer=fields.identifier("issuer"),
            person="" if host else fields.identifier("person"),
            team="" if host else fields.identifier("team"),
            roles=() if host else fields.texts("roles"),
            host=host,
            pool=fields.identifier("pool") if host else "",
            root_sha256=fields.digest("root_sha256"),
            server_sha256=fields.digest("server_sha256"),
            public=_public(fields.text("public")),
            tls_sha256=fields.digest("tls_sha256"),
            created_at=fields.integer("created_at"),
            expires_at=fields.integer("expires_at"),
            service=not host and fields.mark("service"),
        )
        fields.finish()
        ordered = tuple(sorted(set(token.roles))) == token.roles
        if not host and (not token.roles or set(token.roles) - set(ROLES) or not ordered):
            raise FormatError(f"enrolment-token: roles must be a sorted list out of {', '.join(ROLES)}")
        if token.service and set(token.roles) - set(SERVICE_ROLES):
            raise FormatError(f"enrolment-token: a service has roles out of {', '.join(SERVICE_ROLES)}")
        if not 0 < token.expires_at - token.created_at <= MAX_LIFETIME_SECONDS:
            raise FormatError(f"enrolment-token: it must expire within {MAX_LIFETIME_SECONDS} s of being made")
        return token


@dataclass(frozen=True)
class Claim:
    """The keys that the holder of a token made."""

    token_id: str
    csr_pem: str
    signing_public: bytes
    """Raw Ed25519 public key."""
    recipient: str
    """age1pq… key."""
    created_at: int
    host: bool = False
    """For keys of a worker host; a person's otherwise."""

    @property
    def kind(self) -> str:
        """PERSON or HOST."""
        return HOST if self.host else PERSON

    def to_payload(self) -> bytes:
        host: dict[str, JSON] = {"host": True} if self.host else {}
        return canonical_bytes(
            {
                **host,
                "type": "enrolment-claim",
                "v": 1,
                "token_id": self.token_id,
                "csr_pem": self.csr_pem,
                "signing_public": b64(self.signing_public),
                "recipient": self.recipient,
                "created_at": self.created_at,
            }
        )

    @classmethod
    def parse(cls, payload: bytes) -> Claim:
        """Raises FormatError."""
        fields = Fields.of_document("enrolment-claim", payload)
        claim = cls(
            token_id=fields.identifier("token_id"),
            csr_pem=fields.text("csr_pem"),
            signing_public=_public(fields.text("signing_public")),
            recipient=fields.text("recipient"),
            created_at=fields.integer("created_at"),
            host=fields.mark("host"),
        )
        fields.finish()
        return claim


@dataclass(frozen=True)
class SignedWelcome:
    """The root's answer to a claim."""

    token_id: str
    claim_sha256: str
    site: str
    person: str
    """Empty in the welcome of a host."""
    endpoint: str
    """HOST:PORT of the control plane; empty where the custodian named none."""
    root_public: bytes
    """Raw Ed25519 public key."""
    ca_pem: str
    certificate_pem: str
    host: str = ""
    """Id of the worker host, in the welcome of one."""

    @property
    def kind(self) -> str:
        """PERSON or HOST."""
        return HOST if self.host else PERSON

    @property
    def holder(self) -> str:
        """Id of the person or host."""
        return self.host or self.person

    def to_payload(self) -> bytes:
        document: dict[str, JSON] = {
            "type": "welcome",
            "v": 1,
            "token_id": self.token_id,
            "claim_sha256": self.claim_sha256,
            "site": self.site,
            self.kind: self.holder,
            "endpoint": self.endpoint,
            "root_public": b64(self.root_public),
            "ca_pem": self.ca_pem,
            "certificate_pem": self.certificate_pem,
        }
        return canonical_bytes(document)

    @classmethod
    def parse(cls, payload: bytes) -> SignedWelcome:
        """Raises FormatError."""
        fields = Fields.of_document("welcome", payload)
        host = fields.unless_absent("host", fields.identifier) or ""
        welcome = cls(
            token_id=fields.identifier("token_id"),
            claim_sha256=fields.digest("claim_sha256"),
            site=fields.identifier("site"),
            person="" if host else fields.identifier("person"),
            host=host,
            endpoint=fields.text("endpoint"),
            root_public=_public(fields.text("root_public")),
            ca_pem=fields.text("ca_pem"),
            certificate_pem=fields.text("certificate_pem"),
        )
        fields.finish()
        return welcome


def verify_token(statement: Statement, roster: Roster, *, now: int) -> IssuedToken:
    """Check that an admin of the roster issued a token, for this site.  An expired one passes: see `verify_claim`.

    Raises SignatureError, BindingError, RosterError, ExpiredError, FormatError.
    """
    token = IssuedToken.parse(statement.payload)
    if token.site != roster.site:
        raise BindingError(f"the token is of site {token.site!r}, this is site {roster.site!r}")
    issuer = roster.person(token.issuer)
    if ADMIN not in issuer.roles:
        raise RosterError(f"{token.issuer} issued the token without being an admin")
    verify_by(statement, TOKEN_TYPE, issuer.signing_keys, token.issuer, signed_at=token.created_at, now=now)
    return token


def verify_claim(statement: Statement, token: IssuedToken, *, now: int) -> Claim:
    """Check that the holder of a token signed the claim, in the token's time.

    Whether the claim *arrived* in that time only its receiver can tell.
    Raises SignatureError, BindingError, ExpiredError, FormatError.
    """
    verify(statement, CLAIM_TYPE, {token.id: token.public}, "the holder of the enrolment token")
    claim = Claim.parse(statement.payload)
    if claim.token_id != token.id:
        raise BindingError("the claim names another enrolment token")
    if claim.kind != token.kind:
        command = "cloister-worker enroll" if token.kind == HOST else "cloister enroll"
        raise BindingError(f"the token is for a {token.kind}, the claim of a {claim.kind}: use it with {command}")
    if claim.created_at >= token.expires_at:
        raise ExpiredError("the claim was made after the enrolment token had expired")
    if not token.created_at - CLOCK_SKEW_SECONDS <= claim.created_at <= now + CLOCK_SKEW_SECONDS:
        raise ExpiredError("the claim is dated outside the enrolment token's life: check the clocks")
    return claim


def verify_welcome(statement: Statement, root_sha256: str) -> SignedWelcome:
    """Check a welcome against the digest of the root that a token pins.

    Raises BindingError for another root, SignatureError, FormatError.
    """
    welcome = SignedWelcome.parse(statement.payload)
    if hashlib.sha256(welcome.root_public).hexdigest() != root_sha256:
        raise BindingError(
            "the site answered with another root than the enrolment token pins: somebody is between you and the site, "
            "or the control plane is hostile; nothing was installed, tell whoever gave you the token"
        )
    verify(statement, WELCOME_TYPE, {key_id(welcome.root_public): welcome.root_public}, "the site's root")
    return welcome


def check_place(welcome: SignedWelcome, claim: Claim, tls_sha256: str, roster: Roster) -> None:
    """The roster gives exactly the claimed keys the place that the welcome names.  Raises BindingError, RosterError."""
    holder: Person | Host = roster.host(welcome.host) if welcome.host else roster.person(welcome.person)
    recipient = holder.sealing_recipient if isinstance(holder, Host) else holder.recipient
    keys = [record.public for record in holder.signing_keys if record.retired_at is None]
    if (
        roster.site != welcome.site
        or tls_sha256 not in holder.tls_sha256
        or claim.signing_public not in keys
        or recipient != claim.recipient
    ):
        raise BindingError(f"the roster does not give {holder.id} the keys of this machine; ask the custodian")


def _public(text: str) -> bytes:
    public = unb64(text, "public key")
    if len(public) != 32:
        raise FormatError(f"an Ed25519 public key has 32 bytes, got {len(public)}")
    return public
