# SPDX-License-Identifier: Apache-2.0
"""Claims of enrolment tokens on their way to the offline root, and welcomes on their way back.

Both files hold signed statements only; whoever carries them can lose them, and change nothing unnoticed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cloister.admin.admit import CERTIFICATE_DAYS, admit_host, admit_person, recertify
from cloister.admin.custody import Custody
from cloister.enrolment import EnrolmentRequest
from cloister.errors import UsageError
from cloister.evidence.enrolment import (
    HOST,
    WELCOME_TYPE,
    Claim,
    IssuedToken,
    SignedWelcome,
    verify_claim,
    verify_token,
)
from cloister.evidence.errors import BindingError, FormatError
from cloister.evidence.roster import Roster
from cloister.evidence.signatures import Statement, b64, unb64


@dataclass(frozen=True)
class Claimed:
    """A token and its claim, as they are carried."""

    token: Statement
    claim: Statement


@dataclass(frozen=True)
class Candidate:
    """A claim that verified: who would join, and on whose word."""

    token: IssuedToken
    claim: Claim
    fingerprint: str
    """SHA-256 of the claim, hex; the holder's own command shows the same."""


def write_claims(claims: Iterable[Claimed]) -> bytes:
    """The file that goes to the custodian."""
    rows = [{"token": b64(c.token.to_bytes()), "claim": b64(c.claim.to_bytes())} for c in claims]
    return (json.dumps({"claims": rows}, indent=2) + "\n").encode("ascii")


def read_claims(data: bytes) -> list[Claimed]:
    """Raises UsageError."""
    try:
        rows = json.loads(data)["claims"]
        return [Claimed(_statement(row["token"]), _statement(row["claim"])) for row in rows]
    except (ValueError, KeyError, TypeError, FormatError):
        raise UsageError("this is not a file of claims; make it with: cloister-admin token fetch") from None


def write_welcomes(welcomes: Sequence[Statement]) -> bytes:
    """The file that comes back."""
    return (json.dumps({"welcomes": [b64(w.to_bytes()) for w in welcomes]}, indent=2) + "\n").encode("ascii")


def read_welcomes(data: bytes) -> list[Statement]:
    """Raises UsageError."""
    try:
        return [_statement(row) for row in json.loads(data)["welcomes"]]
    except (ValueError, KeyError, TypeError, FormatError):
        raise UsageError("this is not a file of welcomes; make it with: cloister-admin token admit") from None


def verify_candidate(custody: Custody, carried: Claimed, *, now: int) -> Candidate:
    """Check token and claim against the roster that was signed last, on the custodian's machine.

    Raises an EvidenceError.
    """
    roster = Roster.parse(custody.roster().payload)
    token = verify_token(carried.token, roster, now=now)
    if token.root_sha256 != hashlib.sha256(custody.root_key().public).hexdigest():
        raise BindingError(f"the token for {token.holder} pins another root than this one; issue a new token")
    claim = verify_claim(carried.claim, token, now=now)
    return Candidate(token, claim, carried.claim.digest)


def admit_candidate(
    custody: Custody, candidate: Candidate, *, now: int, endpoint: str = "", days: int = CERTIFICATE_DAYS
) -> Statement:
    """Put the person or host on the draft and sign their welcome; again for the same keys, it signs that again.

    Raises UsageError, also where the id is taken by other keys.
    """
    token, claim = candidate.token, candidate.claim
    request = EnrolmentRequest(token.kind, claim.csr_pem, b64(claim.signing_public), claim.recipient)
    draft = custody.draft()
    known = draft.hosts if token.kind == HOST else draft.people
    taken = next((holder for holder in known if holder.id == token.holder), None)
    if taken is not None and claim.signing_public in [key.public for key in taken.signing_keys]:
        made = recertify(custody, request, token.holder, now=now, endpoint=endpoint, days=days)
    elif token.kind == HOST:
        made = admit_host(custody, request, token.host, token.pool, now=now, endpoint=endpoint, days=days)
    else:
        made = admit_person(
            custody,
            request,
            token.person,
            token.team,
            token.roles,
            now=now,
            endpoint=endpoint,
            days=days,
            service=token.service,
        )
    root = custody.root_key()
    welcome = SignedWelcome(
        token_id=token.id,
        claim_sha256=candidate.fingerprint,
        site=made.site,
        person=token.person,
        endpoint=made.endpoint,
        root_public=root.public,
        ca_pem=made.ca_pem,
        certificate_pem=made.certificate_pem,
        host=token.host,
    )
    return root.sign(WELCOME_TYPE, welcome.to_payload())


def _statement(text: str) -> Statement:
    return Statement.from_bytes(unb64(text, "statement"))
