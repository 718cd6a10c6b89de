# SPDX-License-Identifier: Apache-2.0
"""A custodian, an admin and a token, without a network: what enrolment is tested with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cloister.admin.admit import admit_person
from cloister.admin.custody import Custody
from cloister.admin.draft import add_team, set_log
from cloister.admin.log_key import make_log_key
from cloister.admin.root import create_root
from cloister.admin.sign import sign_next
from cloister.enrolment import EnrolmentRequest
from cloister.enrolment_token import EnrolmentToken
from cloister.evidence.enrolment import CLAIM_TYPE, TOKEN_TYPE, Claim, IssuedToken
from cloister.evidence.signatures import SigningKey, Statement, b64
from cloister.sealed.keys import Identity
from cloister.tls import generate_tls_key, make_csr
from set_clock import NOW

DAY = 24 * 3600
SERVER_SHA256 = "5" * 64


@dataclass(frozen=True)
class Joiner:
    """Keys that somebody made at home."""

    signing: SigningKey
    request: EnrolmentRequest

    @classmethod
    def make(cls, kind: str = "person") -> Joiner:
        signing, identity = SigningKey.generate(), Identity.generate()
        csr = make_csr(generate_tls_key())
        return cls(signing, EnrolmentRequest(kind, csr, b64(signing.public), str(identity.recipient)))

    def claim(self, token: EnrolmentToken, at: int = NOW + 60) -> Statement:
        request = self.request
        claim = Claim(
            token.id, request.csr_pem, self.signing.public, request.recipient, at, host=request.kind == "host"
        )
        return token.signing_key.sign(CLAIM_TYPE, claim.to_payload())


@dataclass(frozen=True)
class TokenSite:
    """A founded site with one admin, dana, and one member, alice, of team alpha."""

    custody: Custody
    admin: Joiner
    member: Joiner

    @classmethod
    def found(cls, directory: Path) -> TokenSite:
        custody = create_root(directory, "test", endpoint="localhost:1", clock=lambda: NOW)
        draft = add_team(custody.draft(), "alpha", str(Identity.generate().recipient))
        custody.save_draft(set_log(draft, "test/log", make_log_key("test/log").vkey))
        admin, member = Joiner.make(), Joiner.make()
        admit_person(custody, admin.request, "dana", "alpha", ["admin"], now=NOW)
        admit_person(custody, member.request, "alice", "alpha", ["member"], now=NOW)
        sign_next(custody, 30, now=NOW)
        return cls(custody, admin, member)

    def token(self, lifetime: int = DAY) -> EnrolmentToken:
        root = self.custody.root_key().public
        return EnrolmentToken.generate("test", root, SERVER_SHA256, NOW + lifetime)

    def issued(self, token: EnrolmentToken, issuer: str = "dana", **changes: object) -> Statement:
        person: dict[str, object] = {"person": "erin", "team": "alpha", "roles": ("member",)}
        host: dict[str, object] = {"person": "", "team": "", "roles": ()}
        values: dict[str, object] = {
            **(host if "host" in changes else person),
            "site": token.site,
            "issuer": issuer,
            "root_sha256": token.root_sha256,
            "server_sha256": token.server_sha256,
            "public": token.signing_key.public,
            "tls_sha256": token.tls_sha256,
            "created_at": NOW,
            "expires_at": token.expires_at,
            **changes,
        }
        key = {"dana": self.admin, "alice": self.member}[issuer].signing
        return key.sign(TOKEN_TYPE, IssuedToken(**values).to_payload())  # type: ignore[arg-type]  # fields, by name
