# SPDX-License-Identifier: Apache-2.0
"""Edits of the roster before it is signed.  Each takes a roster and returns a new one; nothing is stored here.

Nobody is ever removed: a person or host that leaves is *retired*, so that what they signed before still verifies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from cloister.enrolment import EnrolmentRequest
from cloister.errors import UsageError
from cloister.evidence.checkpoint import open_checkpoint
from cloister.evidence.errors import EvidenceError, FormatError
from cloister.evidence.fields import IDENTIFIER
from cloister.evidence.note import NoteVerifier
from cloister.evidence.roster import ROLES, Host, KeyRecord, Person, Roster, Team
from cloister.evidence.signatures import unb64
from cloister.sealed.errors import KeyFormatError
from cloister.sealed.keys import Recipient
from cloister.tls import load_csr, spki_sha256

T = TypeVar("T")

FIRST_VERSION = 1
MINIMUM_CLIENT_VERSION = "0.1.0"


def new_draft(site: str) -> Roster:
    """The roster of a site that nobody belongs to yet.  Raises UsageError for a bad name."""
    return Roster(
        site=_identifier("site", site),
        version=FIRST_VERSION,
        issued_at=0,
        expires_at=0,
        minimum_client_version=MINIMUM_CLIENT_VERSION,
        log_origin="",
        log_vkey="",
        policy_keys=(),
        people=(),
        teams=(),
        hosts=(),
    )


def add_team(draft: Roster, team: str, recovery_recipient: str) -> Roster:
    """Add a team with the age1pq… key of its offline recovery identity.  Raises UsageError."""
    _identifier("team", team)
    _new("team", team, [t.id for t in draft.teams])
    return replace(draft, teams=(*draft.teams, Team(team, _recipient(recovery_recipient))))


def add_person(
    draft: Roster, request: EnrolmentRequest, person: str, team: str, roles: Sequence[str], *, now: int
) -> Roster:
    """Add a person with the keys of their request.  Raises UsageError."""
    _kind(request, "person")
    _identifier("person", person)
    _new("person", person, [p.id for p in draft.people])
    if team not in {t.id for t in draft.teams}:
        raise UsageError(f"team {team!r} is not in the draft; run: cloister-admin team add {team}")
    if not roles or (unknown := sorted(set(roles) - set(ROLES))):
        named = f"role {unknown[0]!r} is unknown" if roles else "a person needs a role"
        raise UsageError(f"{named}; roles are {', '.join(ROLES)}")
    record = Person(
        id=person,
        team=team,
        roles=tuple(sorted(set(roles))),
        signing_keys=(_signing_key(request, now),),
        tls_sha256=(_tls_pin(draft, request),),
        recipient=_recipient(request.recipient),
    )
    return replace(draft, people=(*draft.people, record))


def retire_person(draft: Roster, person: str, *, now: int) -> Roster:
    """Take roles, TLS keys and the right to sign from a person.  Raises UsageError."""
    record = _known("person", person, {p.id: p for p in draft.people})
    keys = tuple(_retired(key, now) for key in record.signing_keys)
    retired = replace(record, roles=(), tls_sha256=(), signing_keys=keys)
    return replace(draft, people=tuple(retired if p.id == person else p for p in draft.people))


def add_host(draft: Roster, request: EnrolmentRequest, host: str, pool: str, *, now: int) -> Roster:
    """Certify a worker host with the keys of its request.  Raises UsageError."""
    _kind(request, "host")
    _identifier("host", host)
    _identifier("pool", pool)
    _new("host", host, [h.id for h in draft.hosts])
    record = Host(
        id=host,
        pool=pool,
        signing_keys=(_signing_key(request, now),),
        tls_sha256=(_tls_pin(draft, request),),
        sealing_recipient=_recipient(request.recipient),
    )
    return replace(draft, hosts=(*draft.hosts, record))


def retire_host(draft: Roster, host: str, *, now: int) -> Roster:
    """Take a host out of its pool: nothing new is sealed to it and it opens nothing more.  Raises UsageError."""
    record = _known("host", host, {h.id: h for h in draft.hosts})
    keys = tuple(_retired(key, now) for key in record.signing_keys)
    retired = replace(record, tls_sha256=(), signing_keys=keys, retired_at=now)
    return replace(draft, hosts=tuple(retired if h.id == host else h for h in draft.hosts))


def add_policy_key(draft: Roster, public: bytes, *, now: int) -> Roster:
    """Trust an Ed25519 key (raw, 32 bytes) for release policies.  Raises UsageError."""
    if len(public) != 32:
        raise UsageError(f"a policy key has 32 bytes, got {len(public)}")
    record = KeyRecord(public, now)
    _new("policy key", record.key_id, [k.key_id for k in draft.policy_keys])
    return replace(draft, policy_keys=(*draft.policy_keys, record))


def set_log(draft: Roster, origin: str, vkey: str) -> Roster:
    """Name the audit log and its verifier key.

    Raises UsageError, also where another log is named already: a change would let a fork pass unnoticed.
    """
    try:
        verifier = NoteVerifier.parse(vkey)
    except FormatError as error:
        raise UsageError(f"{error}; pass the vkey that `cloister-admin log keygen` printed") from None
    if verifier.name != origin:
        raise UsageError(f"the verifier key is for log {verifier.name!r}, not for {origin!r}")
    if draft.log_vkey not in ("", vkey):
        raise UsageError(f"the roster names the log {draft.log_origin!r} already; a site keeps its log")
    return replace(draft, log_origin=origin, log_vkey=vkey)


def add_restoration(draft: Roster, note: bytes) -> Roster:
    """Name the signed head at which a restored log goes on.

    Whoever remembers more of the log than that accepts it once and gives up what is beyond.  Raises UsageError.
    """
    try:
        head = open_checkpoint(note, NoteVerifier.parse(draft.log_vkey), draft.log_origin)
    except EvidenceError as error:
        raise UsageError(f"not a head of this site's log: {error}; pass the file that `restore` wrote") from None
    text = note.decode("utf-8")
    if text in draft.log_restored:
        raise UsageError(f"the draft names the restored head over {head.size} entries already")
    return replace(draft, log_restored=(*draft.log_restored, text))


def _identifier(kind: str, value: str) -> str:
    if not IDENTIFIER.fullmatch(value):
        raise UsageError(f"{kind} {value[:64]!r} is not a name; use a-z, 0-9, '.', '_', '-', 64 at most")
    return value


def _new(kind: str, value: str, present: Sequence[str]) -> None:
    if value in present:
        raise UsageError(f"{kind} {value!r} is in the draft already")


def _known(kind: str, value: str, records: dict[str, T]) -> T:
    if value not in records:
        raise UsageError(f"{kind} {value!r} is not in the draft")
    return records[value]


def _retired(key: KeyRecord, now: int) -> KeyRecord:
    return key if key.retired_at is not None else replace(key, retired_at=now)


def _kind(request: EnrolmentRequest, wanted: str) -> None:
    if request.kind != wanted:
        raise UsageError(f"the request is for a {request.kind}, not for a {wanted}")


def _recipient(text: str) -> str:
    try:
        return str(Recipient.parse(text))
    except KeyFormatError as error:
        raise UsageError(f"{error}; pass an age1pq… key") from None


def _signing_key(request: EnrolmentRequest, now: int) -> KeyRecord:
    try:
        public = unb64(request.signing_public, "signing key")
    except FormatError as error:
        raise UsageError(f"enrolment request: {error}") from None
    if len(public) != 32:
        raise UsageError(f"enrolment request: a signing key has 32 bytes, got {len(public)}")
    return KeyRecord(public, now)


def _tls_pin(draft: Roster, request: EnrolmentRequest) -> str:
    """One TLS key names one person or host: shared, it would let one act as the other."""
    pin = spki_sha256(load_csr(request.csr_pem))
    holders = [(p.id, p.tls_sha256) for p in draft.people] + [(h.id, h.tls_sha256) for h in draft.hosts]
    for holder, pins in holders:
        if pin in pins:
            raise UsageError(f"the TLS key of this request is {holder}'s already; ask for new keys")
    return pin
