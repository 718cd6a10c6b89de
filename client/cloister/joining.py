# SPDX-License-Identifier: Apache-2.0
"""Joining a site with a one-time token: keys are made here, the root is pinned, the site is not trusted.

Steps of `join`: (1) the token is whole and in time; (2) keys and a claim over their public halves are made, once, and
kept; (3) the server at the endpoint has the TLS key that the token pins; (4) the claim is left there, with the
token's own TLS key; (5) once there is a welcome, it is by the root that the token pins, for this claim; (6) the roster
is signed by that root and gives exactly these keys their place; (7) only then anything is installed.
Run again, it continues: the same keys, the same claim.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import grpc

from cloister.api.v1 import enrolment_pb2
from cloister.channel import Connection, connect_with_token
from cloister.enrolment import EnrolmentRequest, Welcome
from cloister.enrolment_token import EnrolmentToken
from cloister.errors import ConnectError, HomeError, UsageError
from cloister.evidence.enrolment import CLAIM_TYPE, Claim, SignedWelcome, check_place, verify_welcome
from cloister.evidence.errors import BindingError, FormatError
from cloister.evidence.roster import verify_roster
from cloister.evidence.signatures import Statement, b64, unb64
from cloister.files import replace_private
from cloister.home import KEY_FILES, Home, SitePins, install_welcome, keygen
from cloister.served_certificate import pinned_certificate
from cloister.tls import load_tls_key, spki_sha256
from cloister.wire import statement_from_proto, statement_to_proto

CLAIM_FILE = "enrolment.json"
"""The claim that was made, until it is admitted: {"token_id", "claim"}."""
Dial = Callable[[EnrolmentToken, str], grpc.Channel]


@dataclass(frozen=True)
class Waiting:
    """The claim lies at the site; the root custodian has not answered."""

    fingerprint: str
    """SHA-256 of the claim, hex: for the custodian to compare."""


def dial(token: EnrolmentToken, endpoint: str) -> grpc.Channel:
    """A channel to the pinned server.  Raises ConnectError, UsageError."""
    return connect_with_token(token, pinned_certificate(endpoint, token.server_sha256), endpoint)


def join(home: Home, token: EnrolmentToken, endpoint: str, now: int, *, dial: Dial = dial) -> SitePins | Waiting:
    """Claim a token, or finish what was claimed.  Safe to repeat until it answers with the pins.

    Raises UsageError, HomeError, ConnectError, RefusedError, an EvidenceError where the site shows what is not true.
    """
    claim = _claim(home, token, now)  # (1) (2)
    connection = Connection(dial(token, endpoint))  # (3)
    try:
        answer = _ask(connection, claim)  # (4)
    finally:
        connection.close()
    if answer.state != enrolment_pb2.TOKEN_STATE_ADMITTED:
        return Waiting(claim.digest)
    welcome = verify_welcome(statement_from_proto(answer.welcome), token.root_sha256)  # (5)
    _check_binding(welcome, token, claim)
    seen = home.state().roster_version
    roster = verify_roster(statement_from_proto(answer.roster), welcome.root_public, seen_version=seen, now=now)  # (6)
    tls = spki_sha256(load_tls_key(home.read("tls.key")))
    check_place(welcome, Claim.parse(claim.payload), tls, roster)
    pins = install_welcome(home, _installable(welcome, endpoint))  # (7)
    (home.directory / CLAIM_FILE).unlink(missing_ok=True)
    return pins


def _claim(home: Home, token: EnrolmentToken, now: int) -> Statement:
    """The claim of this home for a token: the stored one, or a new one."""
    if (home.directory / "site.json").exists():
        raise HomeError(f"{home.directory} belongs to site {home.pins().site} already; name another --home")
    path = home.directory / CLAIM_FILE
    if path.exists():
        stored = _stored(home)
        if stored[0] == token.id:
            return stored[1]
    if now >= token.expires_at:
        when = datetime.fromtimestamp(token.expires_at, UTC)
        raise UsageError(f"the enrolment token expired at {when:%Y-%m-%d %H:%M} UTC; ask the admin for another")
    request = _request(home)
    claim = Claim(token.id, request.csr_pem, unb64(request.signing_public, "signing key"), request.recipient, now)
    statement = token.signing_key.sign(CLAIM_TYPE, claim.to_payload())
    values = {"token_id": token.id, "claim": b64(statement.to_bytes())}
    replace_private(path, json.dumps(values, sort_keys=True).encode("ascii"))
    return statement


def _request(home: Home) -> EnrolmentRequest:
    """Keys of this home, made now where there are none."""
    if not any((home.directory / name).exists() for name in KEY_FILES):
        return keygen(home)
    return EnrolmentRequest.from_json(home.read("request.json"))


def _stored(home: Home) -> tuple[str, Statement]:
    try:
        values = json.loads(home.read(CLAIM_FILE))
        return str(values["token_id"]), Statement.from_bytes(unb64(values["claim"], "claim"))
    except (ValueError, KeyError, TypeError, FormatError):
        raise HomeError(f"{home.directory / CLAIM_FILE} is damaged; remove it and enrol with a new token") from None


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
        id=welcome.person,
        kind="person",
    )
