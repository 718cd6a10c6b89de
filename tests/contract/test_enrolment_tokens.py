# SPDX-License-Identifier: Apache-2.0
"""Enrolment tokens in the register, on SQLite and on PostgreSQL."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest

from cloister.admin.claims import Claimed, admit_candidate, verify_candidate
from cloister.admin.custody import Custody
from cloister.enrolment_token import EnrolmentToken
from cloister.evidence.enrolment import COLLECT_SECONDS, TOKEN_TYPE, IssuedToken
from cloister.evidence.roster import Roster
from cloister.evidence.signatures import Statement
from cloister_server.calls import Principal
from cloister_server.database.rows import TokenRow
from cloister_server.errors import (
    EvidenceRejectedError,
    IdConflictError,
    InvalidFieldError,
    NotFoundError,
    WrongStateError,
)
from cloister_server.registry import tokens
from queue_bench import Bench
from served_site import SITE
from token_site import Joiner

HOUR = 3600


@dataclass
class Register:
    """The register's functions, as the service calls them, on one token for zoe."""

    bench: Bench
    token: EnrolmentToken
    now: int

    @property
    def custody(self) -> Custody:
        return self.bench.founded.custody

    def issued(self, issuer: str = "dana", **changes: object) -> Statement:
        token = self.token
        values: dict[str, object] = {
            "site": SITE,
            "issuer": issuer,
            "person": "zoe",
            "team": "blue",
            "roles": ("member",),
            "root_sha256": token.root_sha256,
            "server_sha256": token.server_sha256,
            "public": token.signing_key.public,
            "tls_sha256": token.tls_sha256,
            "created_at": self.now,
            "expires_at": token.expires_at,
            **changes,
        }
        payload = IssuedToken(**values).to_payload()  # type: ignore[arg-type]  # fields, by name
        return self.bench.founded.people[issuer].signing.sign(TOKEN_TYPE, payload)

    def create(self, statement: Statement | None = None, pem: str = "", by: str = "dana") -> TokenRow:
        roster, offered = self.bench.founded.roster, statement or self.issued()
        certificate = pem or self.token.certificate_pem()
        return self.bench.run(by, lambda tx, call: tokens.create(tx, call, offered, certificate, roster, self.now))

    def claim(self, statement: Statement, now: int | None = None) -> TokenRow:
        holder = Principal(self.token.id, "enrolment", "", "", frozenset({"enrolment"}), self.token.tls_sha256, "")
        when = self.now if now is None else now
        return self.bench.run(
            "dana", lambda tx, call: tokens.claim(tx, replace(call, principal=holder), statement, when)
        )

    def admit(self, welcome: Statement, roster: Roster) -> TokenRow:
        root = self.custody.root_key().public
        return self.bench.run("dana", lambda tx, call: tokens.admit(tx, call, welcome, root, roster))

    def known(self, now: int) -> list[str]:
        return [row.id for row in self.bench.look(lambda connection: tokens.known(connection, now))]


@pytest.fixture
def register(bench: Bench) -> Register:
    now = bench.founded.now
    root = bench.founded.custody.root_key().public
    return Register(bench, EnrolmentToken.generate(SITE, root, "5" * 64, now + HOUR), now)


def test_a_token_is_registered_once(register: Register) -> None:
    """The same token again changes nothing and leaves no second entry; other terms under its key are refused."""
    assert register.create() == register.create()
    assert 1 == len(register.bench.entries("token.create", register.token.id))
    with pytest.raises(IdConflictError):
        register.create(register.issued(roles=("admin",)))


@pytest.mark.parametrize(
    "changes", [{"person": "alice"}, {"team": "unknown"}, {"site": "other"}, {"created_at": 1, "expires_at": 2}]
)
def test_a_token_that_leads_nowhere_is_refused(register: Register, changes: dict[str, Any]) -> None:
    """A person who is there already, an unknown team, another site, and a past life are refused at once."""
    with pytest.raises((InvalidFieldError, EvidenceRejectedError)):
        register.create(register.issued(**changes))
    assert [] == register.known(register.now)


HOST: dict[str, Any] = {"person": "", "team": "", "roles": (), "host": "gpu2", "pool": "big"}


def test_a_token_for_a_host_says_so_in_the_log(register: Register) -> None:
    """Its entry names host and pool; one for a host that is on the roster is refused, a pool may be new."""
    with pytest.raises(InvalidFieldError, match="choose another id"):
        register.create(register.issued(**{**HOST, "host": "host-1"}))
    row = register.create(register.issued(**HOST))
    (entry,) = register.bench.entries("token.create", register.token.id)
    assert ("gpu2", "gpu2", "big") == (row.person, entry.event.detail["host"], entry.event.detail["pool"])


def test_a_token_for_a_host_takes_no_keys_of_a_person(register: Register) -> None:
    """The claim is refused before it is kept, so that the token still works for the host."""
    register.create(register.issued(**HOST))
    with pytest.raises(EvidenceRejectedError, match="cloister-worker enroll"):
        register.claim(Joiner.make().claim(register.token, register.now))
    assert "CLAIMED" == register.claim(Joiner.make("host").claim(register.token, register.now)).state


def test_only_the_admin_who_signed_registers_a_token(register: Register) -> None:
    """Neither a member's signature nor another caller's token is taken."""
    with pytest.raises(EvidenceRejectedError):
        register.create(register.issued(issuer="alice"), by="alice")
    with pytest.raises(InvalidFieldError, match="issued by dana"):
        register.create(by="carol")


def test_only_the_certificate_of_the_token_becomes_a_trust_anchor(register: Register) -> None:
    """An authority's certificate, another token's, or a second one behind the first is refused."""
    other = EnrolmentToken.generate(SITE, b"r" * 32, "5" * 64, register.now + HOUR)
    authority = register.custody.authority().certificate_pem
    own = register.token.certificate_pem()
    for pem in (authority, other.certificate_pem(), own + authority, "no PEM", own + "x" * 5000):
        with pytest.raises(InvalidFieldError, match="certificate_pem"):
            register.create(pem=pem)


def test_a_token_works_once(register: Register) -> None:
    """The same claim may come again; a claim of other keys is refused and leaves the first one."""
    register.create()
    first = Joiner.make().claim(register.token, register.now)
    assert ["CLAIMED"] * 3 == [register.claim(first).state for _ in range(3)]
    assert 1 == len(register.bench.entries("token.claim", register.token.id))
    with pytest.raises(WrongStateError, match="used already") as refused:
        register.claim(Joiner.make().claim(register.token, register.now))
    assert "token_used" == refused.value.metadata["state"]
    row = register.bench.look(lambda connection: tokens.find(connection, register.token.id))
    assert row is not None
    assert first.to_bytes() == row.claim


def test_a_first_claim_must_arrive_in_time(register: Register) -> None:
    """By the control plane's clock, whatever date the claim bears; one that arrived can still be asked after."""
    register.create()
    claim = Joiner.make().claim(register.token, register.now)
    with pytest.raises(WrongStateError, match="expired"):
        register.claim(claim, register.now + HOUR)
    register.claim(claim, register.now + HOUR - 1)
    assert "CLAIMED" == register.claim(claim, register.now + 2 * HOUR).state


def test_a_claim_needs_the_key_of_the_token(register: Register) -> None:
    """A claim that another token's key signed is refused."""
    register.create()
    other = EnrolmentToken.generate(SITE, b"r" * 32, "5" * 64, register.now + HOUR)
    with pytest.raises(EvidenceRejectedError):
        register.claim(Joiner.make().claim(other, register.now))


def test_a_claim_is_bounded(register: Register) -> None:
    """Somebody who is not admitted yet cannot fill the register: signatures that nobody asked for count, too."""
    register.create()
    claim = Joiner.make().claim(register.token, register.now)
    bloated = replace(claim, signatures=claim.signatures * 500)
    with pytest.raises(InvalidFieldError, match="bytes"):
        register.claim(bloated)


def test_a_withdrawn_token_claims_nothing(register: Register) -> None:
    """Withdrawing is final, is logged once, and closes the door of TLS as well."""
    register.create()
    for _ in range(2):
        taken = register.bench.run("dana", lambda tx, call: tokens.withdraw(tx, call, register.token.id))
        assert "WITHDRAWN" == taken.state
    assert 1 == len(register.bench.entries("token.withdraw", register.token.id))
    assert [] == register.known(register.now)
    with pytest.raises(WrongStateError, match="withdrawn"):
        register.claim(Joiner.make().claim(register.token, register.now))
    with pytest.raises(NotFoundError):
        register.bench.run("dana", lambda tx, call: tokens.withdraw(tx, call, "unknown"))


def test_a_token_is_known_as_long_as_it_can_be_collected(register: Register) -> None:
    """Until thirty days after its expiry, so that its holder hears why; then its key opens no connection."""
    register.create()
    assert [register.token.id] == register.known(register.now + HOUR)
    assert [] == register.known(register.now + HOUR + COLLECT_SECONDS)


@pytest.mark.parametrize("place", [{}, HOST])
def test_the_welcome_comes_after_the_roster(place: dict[str, Any], register: Register) -> None:
    """A welcome is handed on when its claim is there, the root signed it, and the roster in force names its holder."""
    register.create(register.issued(**place))
    claim = Joiner.make("host" if place else "person").claim(register.token, register.now)
    register.claim(claim)
    founded = register.bench.founded
    before = register.custody.draft()
    try:
        candidate = verify_candidate(register.custody, Claimed(register.issued(**place), claim), now=register.now)
        welcome = admit_candidate(register.custody, candidate, now=register.now)
        with pytest.raises(WrongStateError, match="publish the signed roster first"):
            register.admit(welcome, founded.roster)
        published = replace(
            founded.roster, people=register.custody.draft().people, hosts=register.custody.draft().hosts
        )
        assert "ADMITTED" == register.admit(welcome, published).state
        assert welcome.to_bytes() == register.admit(welcome, published).welcome
        forged = founded.people["dana"].signing.sign(welcome.payload_type, welcome.payload)
        with pytest.raises(EvidenceRejectedError):
            register.admit(forged, published)
    finally:
        register.custody.save_draft(before)
