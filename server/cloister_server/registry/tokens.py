# SPDX-License-Identifier: Apache-2.0
"""Enrolment tokens: registered by an admin, claimed once by their holder, admitted by the root.

Promise: nothing here is believed later.  The root custodian verifies token and claim again, away from the control
plane, and the holder verifies the welcome; the checks here give early and clear errors, and the time of arrival.
"""

from __future__ import annotations

import hashlib

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import Connection, insert, or_, select, update

from cloister.api.v1 import enrolment_pb2
from cloister.evidence.canonical import JSON
from cloister.evidence.enrolment import (
    COLLECT_SECONDS,
    PERSON,
    IssuedToken,
    verify_claim,
    verify_token,
    verify_welcome,
)
from cloister.evidence.entry import Subject
from cloister.evidence.errors import EvidenceError
from cloister.evidence.roster import Roster
from cloister.evidence.signatures import Statement
from cloister.wire import statement_to_proto
from cloister_server.calls import Call
from cloister_server.database import tables
from cloister_server.database.engine import now_ms
from cloister_server.database.rows import TokenRow, one, several
from cloister_server.database.unit_of_work import Transaction
from cloister_server.errors import (
    IdConflictError,
    InvalidFieldError,
    NotFoundError,
    ServerError,
    WrongStateError,
    of_evidence,
)
from cloister_server.identity import ENROLMENT_KIND, read_certificate

OPEN, CLAIMED, ADMITTED, WITHDRAWN = "OPEN", "CLAIMED", "ADMITTED", "WITHDRAWN"
MAX_KNOWN = 256
"""Tokens that may connect at one time; each is a trust anchor of every TLS handshake."""
_CERTIFICATE_BYTES = 4096
_CLAIM_BYTES = 32 * 1024
"""Whoever holds a token has not been admitted: what they may leave is bounded."""
_TOKEN = tables.enrolment_token


def create(
    tx: Transaction, call: Call, statement: Statement, certificate_pem: str, roster: Roster, now: int
) -> TokenRow:
    """Register a token of the caller's; the very same one again changes nothing."""
    try:
        token = verify_token(statement, roster, now=now)
    except EvidenceError as error:
        raise of_evidence(error) from error
    call.about("token", token.id)
    _check_offer(call, token, certificate_pem, roster, now)
    stored = find(tx.connection, token.id)
    if stored is not None:
        if stored.statement != statement.to_bytes():
            raise IdConflictError(f"enrolment token {token.id} is registered with other terms; make a new one")
        return stored
    if len(known(tx.connection, now)) >= MAX_KNOWN:
        raise WrongStateError(f"{MAX_KNOWN} enrolment tokens are known already; withdraw some", state="too_many_tokens")
    tx.connection.execute(
        insert(_TOKEN).values(
            id=token.id,
            state=OPEN,
            person=token.holder,
            tls_sha256=token.tls_sha256,
            certificate_pem=certificate_pem,
            statement=statement.to_bytes(),
            claim=b"",
            welcome=b"",
            created_at=now_ms(tx.connection),
            expires_at_s=token.expires_at,
        )
    )
    place: dict[str, JSON] = {"team": token.team, "roles": list(token.roles)}
    if token.host:
        place = {"pool": token.pool}
    detail: dict[str, JSON] = {token.kind: token.holder, **place, "expires_at": token.expires_at}
    tx.record(call.event("token.create", Subject("token", token.id, statement.digest), detail=detail))
    return _held(tx.connection, token.id)


def list_known(tx: Transaction, call: Call, now: int) -> list[TokenRow]:
    """Every token that still leads somewhere, oldest first."""
    tx.record(call.event("token.list", Subject("token", "")))
    return known(tx.connection, now)


def withdraw(tx: Transaction, call: Call, token_id: str) -> TokenRow:
    """Make a token unusable.  Raises NotFoundError."""
    call.about("token", token_id)
    row = _held(tx.connection, token_id)
    if row.state != WITHDRAWN:
        tx.connection.execute(update(_TOKEN).where(_TOKEN.c.id == row.id).values(state=WITHDRAWN))
        tx.record(call.event("token.withdraw", Subject("token", row.id), detail={_issued(row).kind: row.person}))
    return _held(tx.connection, token_id)


def claim(tx: Transaction, call: Call, statement: Statement, now: int) -> TokenRow:
    """Leave a claim, or ask how the same claim stands.  The caller is the holder of the token, by its TLS key.

    Steps: (1) the token is not withdrawn; (2) the claim is signed with its key, in its time; (3) a first claim arrives
    before the expiry, by this clock; (4) a later one is the very same claim.
    """
    row = _held(tx.connection, call.principal.id)
    call.about("token", row.id)
    if row.state == WITHDRAWN:  # (1)
        raise WrongStateError("this enrolment token was withdrawn; ask the admin for another", state="token_withdrawn")
    token = _issued(row)
    if len(statement.to_bytes()) > _CLAIM_BYTES:
        raise InvalidFieldError("claim", f"it has more than {_CLAIM_BYTES} bytes")
    try:
        verify_claim(statement, token, now=now)  # (2)
    except EvidenceError as error:
        raise of_evidence(error) from error
    if row.state == OPEN:
        if now >= row.expires_at_s:  # (3)
            raise WrongStateError("this enrolment token has expired; ask the admin for another", state="token_expired")
        tx.connection.execute(
            update(_TOKEN).where(_TOKEN.c.id == row.id).values(state=CLAIMED, claim=statement.to_bytes())
        )
    elif statement.payload != Statement.from_bytes(row.claim).payload:  # (4)
        raise WrongStateError(
            "this enrolment token was used already, for other keys: if that was not you, tell the admin at once; "
            "otherwise ask for another token",
            state="token_used",
        )
    if row.state != CLAIMED:  # a holder who waits asks every few seconds: that changes nothing and leaves no entry
        detail: dict[str, JSON] = {token.kind: row.person, "first": row.state == OPEN}
        tx.record(call.event("token.claim", Subject("token", row.id, statement.digest), detail=detail))
    return _held(tx.connection, row.id)


def admit(tx: Transaction, call: Call, statement: Statement, root_public: bytes, roster: Roster) -> TokenRow:
    """Hand the root's welcome to the holder; the same again changes nothing."""
    try:
        welcome = verify_welcome(statement, hashlib.sha256(root_public).hexdigest())
    except EvidenceError as error:
        raise of_evidence(error) from error
    call.about("token", welcome.token_id)
    row = _held(tx.connection, welcome.token_id)
    if row.state not in (CLAIMED, ADMITTED):
        raise WrongStateError(
            f"enrolment token {row.id} is {row.state}, not CLAIMED", state=f"token_{row.state.lower()}"
        )
    if Statement.from_bytes(row.claim).digest != welcome.claim_sha256:
        raise InvalidFieldError("welcome", "it answers another claim than the one that was left with this token")
    if welcome.holder not in _on_roster(roster, welcome.kind):
        raise WrongStateError(
            f"the roster in force does not name {welcome.holder}; publish the signed roster first",
            state="roster_not_published",
        )
    if row.state == ADMITTED and row.welcome == statement.to_bytes():
        return row
    tx.connection.execute(
        update(_TOKEN).where(_TOKEN.c.id == row.id).values(state=ADMITTED, welcome=statement.to_bytes())
    )
    subject = Subject("token", row.id, statement.digest)
    tx.record(call.event("token.admit", subject, detail={welcome.kind: welcome.holder}))
    return _held(tx.connection, row.id)


def find(connection: Connection, token_id: str) -> TokenRow | None:
    """A token's row, or None."""
    return one(connection, select(_TOKEN).where(_TOKEN.c.id == token_id), TokenRow)


def known(connection: Connection, now: int) -> list[TokenRow]:
    """Tokens whose holder may connect: not withdrawn, and not past the time in which a claim is collected.

    An expired one is among them for that long, so that its holder hears why it is refused.
    """
    alive = or_(_TOKEN.c.state == OPEN, _TOKEN.c.state == CLAIMED, _TOKEN.c.state == ADMITTED)
    query = select(_TOKEN).where(alive, _TOKEN.c.expires_at_s > now - COLLECT_SECONDS)
    return several(connection, query.order_by(_TOKEN.c.created_at, _TOKEN.c.id), TokenRow)


def message(row: TokenRow) -> enrolment_pb2.EnrolmentToken:
    """A token as it travels."""
    return enrolment_pb2.EnrolmentToken(
        id=row.id,
        state=enrolment_pb2.TokenState.Value(f"TOKEN_STATE_{row.state}"),
        token=statement_to_proto(Statement.from_bytes(row.statement)),
        claim=statement_to_proto(Statement.from_bytes(row.claim)) if row.claim else None,
    )


def _held(connection: Connection, token_id: str) -> TokenRow:
    """The row, locked until the transaction ends: two claims of one token wait for each other."""
    row = one(connection, select(_TOKEN).where(_TOKEN.c.id == token_id).with_for_update(), TokenRow)
    if row is None:
        raise NotFoundError("enrolment token")
    return row


def _issued(row: TokenRow) -> IssuedToken:
    return IssuedToken.parse(Statement.from_bytes(row.statement).payload)


def _check_offer(call: Call, token: IssuedToken, certificate_pem: str, roster: Roster, now: int) -> None:
    if token.issuer != call.principal.id:
        raise InvalidFieldError("token", f"it was issued by {token.issuer}; each admin registers their own")
    if token.expires_at <= now:
        raise InvalidFieldError("token", "it has expired already; check this machine's clock")
    if token.kind == PERSON and token.team not in {team.id for team in roster.teams}:
        raise InvalidFieldError("token", f"team {token.team} is not on the roster")
    if token.holder in _on_roster(roster, token.kind):
        raise InvalidFieldError("token", f"{token.holder} is on the roster already; choose another id")
    _check_certificate(certificate_pem, token)


def _on_roster(roster: Roster, kind: str) -> set[str]:
    return {known.id for known in (roster.people if kind == PERSON else roster.hosts)}


def _check_certificate(pem: str, token: IssuedToken) -> None:
    """It is of the token's TLS key, speaks for that token alone, and can sign no other."""
    wrong = InvalidFieldError("certificate_pem", "it is not the certificate of the token; make it with cloister-admin")
    if len(pem) > _CERTIFICATE_BYTES:
        raise wrong
    try:
        found = read_certificate(pem.encode("utf-8"))
        certificate = x509.load_pem_x509_certificate(pem.encode("utf-8"))
        authority = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (
        ServerError,
        ValueError,
        UnsupportedAlgorithm,
        x509.ExtensionNotFound,
        x509.DuplicateExtension,
        x509.UnsupportedGeneralNameType,
    ):
        raise wrong from None
    wanted = (token.site, ENROLMENT_KIND, token.id, token.tls_sha256)
    # The text becomes a trust anchor as it is: a second certificate behind the first would be one, too.
    alone = pem == certificate.public_bytes(Encoding.PEM).decode("ascii")
    if authority or not alone or (found.site, found.kind, found.id, found.key_sha256) != wanted:
        raise wrong
