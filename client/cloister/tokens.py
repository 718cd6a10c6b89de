# SPDX-License-Identifier: Apache-2.0
"""Enrolment tokens from an admin's side: issued, listed, withdrawn, and the root's welcomes handed on."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from cloister.api.v1 import enrolment_pb2
from cloister.enrolment_token import EnrolmentToken
from cloister.errors import UsageError
from cloister.evidence.enrolment import MAX_LIFETIME_SECONDS, TOKEN_TYPE, IssuedToken
from cloister.evidence.fields import IDENTIFIER
from cloister.evidence.roster import ROLES, SERVICE_ROLES
from cloister.evidence.signatures import Statement
from cloister.served_certificate import served_certificate
from cloister.session import Session
from cloister.tls import spki_sha256
from cloister.wire import statement_to_proto


class Tokens:
    """`client.tokens`.  Admins."""

    def __init__(
        self,
        session: Session,
        *,
        random: Callable[[int], bytes] = os.urandom,
        server_key: Callable[[str, str], str] = lambda endpoint, ca: spki_sha256(served_certificate(endpoint, ca)),
    ) -> None:
        self._session = session
        self._random = random
        self._server_key = server_key

    def create(
        self, person: str, team: str, roles: Sequence[str], lifetime: int, *, service: bool = False
    ) -> EnrolmentToken:
        """Issue a token for a person, or a pipeline's account, not on the roster yet; `lifetime` in seconds.

        The secret is in the answer alone: it is neither stored nor sent.  Raises UsageError.
        """
        self._check_person(person, team, roles)
        if service and (forbidden := sorted(set(roles) - set(SERVICE_ROLES))):
            raise UsageError(f"a service may not be {forbidden[0]}; give {' or '.join(SERVICE_ROLES)}")
        place = {"person": person, "team": team, "roles": tuple(sorted(set(roles))), "service": service}
        return self._issue(place, lifetime)

    def create_for_host(self, host: str, pool: str, lifetime: int) -> EnrolmentToken:
        """Issue a token for a worker host not on the roster yet; otherwise as `create`.  Raises UsageError."""
        for word, name in (("host", host), ("pool", pool)):
            if not IDENTIFIER.fullmatch(name):
                raise UsageError(f"{word} {name[:64]!r} is not a name; use a-z, 0-9, '.', '_', '-', 64 at most")
        if host in {known.id for known in self._session.site.roster.hosts}:
            raise UsageError(f"host {host!r} is on the roster already; choose another id")
        return self._issue({"person": "", "team": "", "roles": (), "host": host, "pool": pool}, lifetime)

    def _issue(self, place: dict[str, Any], lifetime: int) -> EnrolmentToken:
        """Sign and register a token; `place` is what IssuedToken says of its holder."""
        if not 0 < lifetime <= MAX_LIFETIME_SECONDS:
            raise UsageError(f"a token lives for 1 s to {MAX_LIFETIME_SECONDS // 86400} days, not for {lifetime} s")
        session = self._session
        pins, now = session.site.pins, session.clock()
        server = self._server_key(pins.endpoint, pins.ca_pem)
        token = EnrolmentToken.generate(pins.site, pins.root_public, server, now + lifetime, self._random)
        issued = IssuedToken(
            site=pins.site,
            issuer=pins.id,
            root_sha256=token.root_sha256,
            server_sha256=token.server_sha256,
            public=token.signing_key.public,
            tls_sha256=token.tls_sha256,
            created_at=now,
            expires_at=token.expires_at,
            **place,
        )
        statement = session.home.signing_key().sign(TOKEN_TYPE, issued.to_payload())
        request = enrolment_pb2.CreateTokenRequest(
            token=statement_to_proto(statement), certificate_pem=token.certificate_pem()
        )
        session.connection.call(session.connection.enrolment.CreateToken, request)
        return token

    def list(self) -> list[enrolment_pb2.EnrolmentToken]:
        """Every token that still leads somewhere, oldest first."""
        stubs = self._session.connection
        return list(stubs.call(stubs.enrolment.ListTokens, enrolment_pb2.ListTokensRequest()).tokens)

    def withdraw(self, token_id: str) -> enrolment_pb2.EnrolmentToken:
        """Make a token unusable.  Raises NotFoundError."""
        stubs = self._session.connection
        request = enrolment_pb2.WithdrawTokenRequest(id=token_id)
        return stubs.call(stubs.enrolment.WithdrawToken, request).token

    def admit(self, welcome: Statement) -> enrolment_pb2.EnrolmentToken:
        """Hand a welcome that the root has signed to the holder of its token."""
        stubs = self._session.connection
        request = enrolment_pb2.AdmitClaimRequest(welcome=statement_to_proto(welcome))
        return stubs.call(stubs.enrolment.AdmitClaim, request).token

    def _check_person(self, person: str, team: str, roles: Sequence[str]) -> None:
        roster = self._session.site.roster
        if not IDENTIFIER.fullmatch(person):
            raise UsageError(f"person {person[:64]!r} is not a name; use a-z, 0-9, '.', '_', '-', 64 at most")
        if person in {known.id for known in roster.people}:
            raise UsageError(f"person {person!r} is on the roster already; choose another id")
        if team not in {known.id for known in roster.teams}:
            known_teams = ", ".join(sorted(known.id for known in roster.teams)) or "none"
            raise UsageError(f"team {team!r} is not on the roster; teams: {known_teams}")
        if not roles or set(roles) - set(ROLES):
            raise UsageError(f"roles are {', '.join(ROLES)}; got {', '.join(roles) or 'none'}")
