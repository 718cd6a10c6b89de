# SPDX-License-Identifier: Apache-2.0
"""Good requests about enrolment tokens, certificates and wraps, on a served site, and the holder of a token."""

from __future__ import annotations

import itertools
from collections.abc import Callable

from google.protobuf.message import Message

from cloister.api.v1 import enrolment_pb2, grants_pb2, identity_pb2
from cloister.enrolment_token import EnrolmentToken
from cloister.evidence.enrolment import TOKEN_TYPE, WELCOME_TYPE, IssuedToken, SignedWelcome
from cloister.evidence.signatures import Statement
from cloister.wire import statement_to_proto
from served_site import SITE, Caller, Keys, ServedSite
from site_objects import Made
from token_site import DAY, SERVER_SHA256, Joiner

ADMIN, MEMBER = "dana", "alice"
_API = "/cloister.api.v1."


class GoodTokens:
    """What an admin, a member and the holder of a token would ask for."""

    def __init__(self, live: ServedSite, dataset: Made) -> None:
        self._live = live
        self._dataset = dataset
        self._numbers = itertools.count(1)
        token = self._created()
        self.holder: Caller = live.with_certificate("holder", Keys(tls=token.tls_key), token.certificate_pem())
        self._claim = Joiner.make().claim(token, live.founded.now)

    def makers(self) -> dict[str, Callable[[], Message]]:
        """A maker for each method."""
        return {
            f"{_API}IdentityService/RenewCertificate": lambda: identity_pb2.RenewCertificateRequest(
                csr_pem=self._live.founded.people[MEMBER].request("person").csr_pem
            ),
            f"{_API}EnrolmentService/CreateToken": lambda: self._request(self._token()),
            f"{_API}EnrolmentService/WithdrawToken": lambda: enrolment_pb2.WithdrawTokenRequest(id=self._created().id),
            f"{_API}EnrolmentService/AdmitClaim": self._admission,
            f"{_API}EnrolmentService/ClaimToken": lambda: enrolment_pb2.ClaimTokenRequest(
                claim=statement_to_proto(self._claim)
            ),
            f"{_API}GrantService/GetWrap": lambda: grants_pb2.GetWrapRequest(
                object_id=self._dataset.id, recipient_key_id=min(self._dataset.wraps)
            ),
            f"{_API}GrantService/AddWraps": lambda: grants_pb2.AddWrapsRequest(
                object_id=self._dataset.id, wraps=self._dataset.wrap_messages()
            ),
        }

    def _token(self) -> EnrolmentToken:
        founded = self._live.founded
        return EnrolmentToken.generate(SITE, founded.custody.root_key().public, SERVER_SHA256, founded.now + DAY)

    def _created(self) -> EnrolmentToken:
        token = self._token()
        self._live.caller(ADMIN).enrolment.CreateToken(self._request(token), timeout=30)
        return token

    def _request(self, token: EnrolmentToken) -> enrolment_pb2.CreateTokenRequest:
        issued = IssuedToken(
            site=SITE,
            issuer=ADMIN,
            person=f"new-{next(self._numbers)}",
            team="blue",
            roles=("member",),
            root_sha256=token.root_sha256,
            server_sha256=token.server_sha256,
            public=token.signing_key.public,
            tls_sha256=token.tls_sha256,
            created_at=token.expires_at - DAY,
            expires_at=token.expires_at,
        )
        signed = self._live.founded.people[ADMIN].signing.sign(TOKEN_TYPE, issued.to_payload())
        return enrolment_pb2.CreateTokenRequest(
            token=statement_to_proto(signed), certificate_pem=token.certificate_pem()
        )

    def _admission(self) -> enrolment_pb2.AdmitClaimRequest:
        """The root's welcome to the standing claim, for somebody who is on the roster."""
        self.holder.enrolment.ClaimToken(
            enrolment_pb2.ClaimTokenRequest(claim=statement_to_proto(self._claim)), timeout=30
        )
        return enrolment_pb2.AdmitClaimRequest(welcome=statement_to_proto(self._welcome()))

    def _welcome(self) -> Statement:
        root = self._live.founded.custody.root_key()
        token_id = self._claim.signatures[0].key_id
        welcome = SignedWelcome(token_id, self._claim.digest, SITE, MEMBER, "", root.public, "ca", "certificate")
        return root.sign(WELCOME_TYPE, welcome.to_payload())
