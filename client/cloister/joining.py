# SPDX-License-Identifier: Apache-2.0
"""Joining a site with a one-time token: keys are made here, the root is pinned, the site is not trusted.

The same steps for a person, whose keys lie in a home, and for a worker host, whose keys lie elsewhere: see `Place`.
Steps of `join`: (1) the token is whole and in time; (2) keys and a claim over their public halves are made, once, and
kept; (3) the server at the endpoint has the TLS key that the token pins; (4) the claim is left there, with the
token's own TLS key; (5) once there is a welcome, it is by the root that the token pins, for this claim; (6) the roster
is signed by that root and gives exactly these keys their place; (7) only then anything is installed.
Run again, it continues: the same keys, the same claim.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol, TypeVar

import grpc

from cloister.api.v1 import enrolment_pb2
from cloister.channel import Connection, connect_with_token
from cloister.enrolment import EnrolmentRequest, Welcome
from cloister.enrolment_token import EnrolmentToken
from cloister.errors import ConnectError, HomeError, UsageError
from cloister.evidence.enrolment import CLAIM_TYPE, HOST, PERSON, Claim, SignedWelcome, check_place, verify_welcome
from cloister.evidence.errors import BindingError, FormatError
from cloister.evidence.roster import verify_roster
from cloister.evidence.signatures import Statement, b64, unb64
from cloister.files import replace_private
from cloister.home import KEY_FILES, Home, SitePins, install_welcome, keygen
from cloister.served_certificate import pinned_certificate
from cloister.tls import load_csr, spki_sha256
from cloister.wire import statement_from_proto, statement_to_proto

CLAIM_FILE = "enrolment.json"
"""The claim that was made, until it is admitted: {"token_id", "claim"}."""
WAIT_SECONDS = 5.0
"""Between two questions: what is waited for is done by a person, who takes minutes at least."""
Dial = Callable[[EnrolmentToken, str], grpc.Channel]
P_co = TypeVar("P_co", covariant=True)


@dataclass(frozen=True)
class Waiting:
    """The claim lies at the site; the root custodian has not answered."""

    fingerprint: str
    """SHA-256 of the claim, hex: for the custodian to compare."""


class Place(Protocol[P_co]):
    """Where the keys of whoever joins are made and kept."""

    @property
    def kind(self) -> str:
        """PERSON or HOST."""

    @property
    def directory(self) -> Path:
        """Keeps the claim until it is admitted."""

    def require_free(self) -> None:
        """Raises HomeError where this place belongs to a site already."""

    def seen_version(self) -> int:
        """Highest version of a roster that was seen here; 0 before the first."""

    def request(self) -> EnrolmentRequest:
        """Public halves of the keys of this place, which are made now where there are none.  Raises HomeError."""

    def install(self, welcome: Welcome) -> P_co:
        """Store certificate and pins.  Raises UsageError, HomeError."""


@dataclass(frozen=True)
class PersonPlace:
    """A person's home."""

    home: Home

    @property
    def kind(self) -> str:
        return PERSON

    @property
    def directory(self) -> Path:
        return self.home.directory

    def require_free(self) -> None:
        if (self.directory / "site.json").exists():
            raise HomeError(f"{self.directory} belongs to site {self.home.pins().site} already; name another --home")

    def seen_version(self) -> int:
        return self.home.state().roster_version

    def request(self) -> EnrolmentRequest:
        if not any((self.directory / name).exists() for name in KEY_FILES):
            return keygen(self.home)
        return EnrolmentRequest.from_json(self.home.read("request.json"))

    def install(self, welcome: Welcome) -> SitePins:
        return install_welcome(self.home, welcome)


def dial(token: EnrolmentToken, endpoint: str) -> grpc.Channel:
    """A channel to the pinned server.  Raises ConnectError, UsageError."""
    return connect_with_token(token, pinned_certificate(endpoint, token.server_sha256), endpoint)


def wait_and_join(
    place: Place[P_co],
    text: str,
    endpoint: str,
    clock: Callable[[], int],
    tell: Callable[[Waiting], None],
    *,
    wait: bool,
    sleep: Callable[[float], None] = time.sleep,
    dial: Dial = dial,
) -> P_co | None:
    """Join with the text of a token; `tell` hears once that the custodian is waited for.

    None where that is still to come and `wait` is not set.  Raises as `join` does.
    """
    token, told = EnrolmentToken.parse(text), False
    while isinstance(answer := join(place, token, endpoint, clock(), dial=dial), Waiting):
        if not told:
            tell(answer)
            told = True
        if not wait:
            return None
        sleep(WAIT_SECONDS)
    return answer


def join(place: Place[P_co], token: EnrolmentToken, endpoint: str, now: int, *, dial: Dial = dial) -> P_co | Waiting:
    """Claim a token, or finish what was claimed.  Safe to repeat until it answers with what `install` answers.

    Raises UsageError, HomeError, ConnectError, RefusedError, an EvidenceError where the site shows what is not true.
    """
    claim = _claim(place, token, now)  # (1) (2)
    connection = Connection(dial(token, endpoint))  # (3)
    try:
        answer = _ask(connection, claim)  # (4)
    finally:
        connection.close()
    if answer.state != enrolment_pb2.TOKEN_STATE_ADMITTED:
        return Waiting(claim.digest)
    welcome = verify_welcome(statement_from_proto(answer.welcome), token.root_sha256)  # (5)
    _check_binding(welcome, token, claim)
    seen = place.seen_version()
    roster = verify_roster(statement_from_proto(answer.roster), welcome.root_public, seen_version=seen, now=now)  # (6)
    claimed = Claim.parse(claim.payload)
    check_place(welcome, claimed, spki_sha256(load_csr(claimed.csr_pem)), roster)
    installed = place.install(_installable(welcome, endpoint))  # (7)
    (place.directory / CLAIM_FILE).unlink(missing_ok=True)
    return installed


def _claim(place: Place[object], token: EnrolmentToken, now: int) -> Statement:
    """The claim of this place for a token: the stored one, or a new one."""
    place.require_free()
    path = place.directory / CLAIM_FILE
    if path.exists():
        stored = _stored(path)
        if stored[0] == token.id:
            return stored[1]
    if now >= token.expires_at:
        when = datetime.fromtimestamp(token.expires_at, UTC)
        raise UsageError(f"the enrolment token expired at {when:%Y-%m-%d %H:%M} UTC; ask the admin for another")
    request = place.request()
    signing = unb64(request.signing_public, "signing key")
    claim = Claim(token.id, request.csr_pem, signing, request.recipient, now, host=place.kind == HOST)
    statement = token.signing_key.sign(CLAIM_TYPE, claim.to_payload())
    values = {"token_id": token.id, "claim": b64(statement.to_bytes())}
    replace_private(path, json.dumps(values, sort_keys=True).encode("ascii"))
    return statement


def _stored(path: Path) -> tuple[str, Statement]:
    try:
        values = json.loads(path.read_bytes())
        return str(values["token_id"]), Statement.from_bytes(unb64(values["claim"], "claim"))
    except (ValueError, KeyError, TypeError, FormatError):
        raise HomeError(f"{path} is damaged; remove it and enrol with a new token") from None


def _ask(connection: Connection, claim: Statement) -> enrolment_pb2.ClaimTokenResponse:
    request = enrolment_pb2.ClaimTokenRequest(claim=statement_to_proto(claim))
    try:
        # Once: a key that the server does not know fails like a server that is away, and the pinned one just answered.
        return connection.call(connection.enrolment.ClaimToken, request, idempotent=False)
    except ConnectError as error:
        if error.reason:
            raise
        raise ConnectError(
            "the site does not take this enrolment token: it was withdrawn, altered, is long expired, or was not made "
            f"there; ask the admin for another ({error})"
        ) from None


def _check_binding(welcome: SignedWelcome, token: EnrolmentToken, claim: Statement) -> None:
    if (welcome.token_id, welcome.claim_sha256, welcome.site) != (token.id, claim.digest, token.site):
        raise BindingError("the root's welcome is for another claim, token or site; tell the root custodian")


def _installable(welcome: SignedWelcome, endpoint: str) -> Welcome:
    return Welcome(
        site=welcome.site,
        endpoint=endpoint,
        root_public=b64(welcome.root_public),
        ca_pem=welcome.ca_pem,
        certificate_pem=welcome.certificate_pem,
        id=welcome.holder,
        kind=welcome.kind,
    )
