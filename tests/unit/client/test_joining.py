# SPDX-License-Identifier: Apache-2.0
"""Joining with a token, against a control plane that may do anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import pytest

from cloister.admin.claims import Claimed, admit_candidate, verify_candidate
from cloister.admin.root import create_root
from cloister.admin.sign import sign_next
from cloister.api.v1 import enrolment_pb2
from cloister.enrolment_token import EnrolmentToken
from cloister.errors import CloisterError, ConnectError, HomeError, UsageError
from cloister.evidence.enrolment import WELCOME_TYPE, SignedWelcome
from cloister.evidence.errors import BindingError, RosterError, SignatureError
from cloister.evidence.signatures import SigningKey, Statement
from cloister.home import Home, SitePins
from cloister.joining import PersonPlace, Waiting, join, wait_and_join
from cloister.wire import statement_from_proto, statement_to_proto
from fake_channel import FakeChannel, Refusal
from set_clock import NOW
from token_site import DAY, Joiner, TokenSite


class Plane:
    """A control plane: keeps the claim, and answers with what a test puts there."""

    def __init__(self) -> None:
        self.claims: list[Statement] = []
        self.welcome: Statement | None = None
        self.roster: Statement | None = None

    def dial(self, token: EnrolmentToken, endpoint: str) -> grpc.Channel:
        return FakeChannel({"ClaimToken": self._claim})

    def _claim(self, request: Any) -> enrolment_pb2.ClaimTokenResponse:  # noqa: ANN401 - see Handler
        self.claims.append(statement_from_proto(request.claim))
        if self.welcome is None or self.roster is None:
            return enrolment_pb2.ClaimTokenResponse(state=enrolment_pb2.TOKEN_STATE_CLAIMED)
        return enrolment_pb2.ClaimTokenResponse(
            state=enrolment_pb2.TOKEN_STATE_ADMITTED,
            welcome=statement_to_proto(self.welcome),
            roster=statement_to_proto(self.roster),
        )


@pytest.fixture
def site(tmp_path: Path) -> TokenSite:
    return TokenSite.found(tmp_path / "root")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "erin")


def admit(site: TokenSite, token: EnrolmentToken, plane: Plane) -> None:
    """What the custodian does, and what an honest control plane then serves."""
    candidate = verify_candidate(site.custody, Claimed(site.issued(token), plane.claims[-1]), now=NOW)
    plane.welcome = admit_candidate(site.custody, candidate, now=NOW)
    plane.roster = sign_next(site.custody, 30, now=NOW)


def ask(home: Home, token: EnrolmentToken, plane: Plane, now: int = NOW) -> SitePins | Waiting:
    return join(PersonPlace(home), token, "localhost:7", now, dial=plane.dial)


def test_a_claim_is_made_once_and_finished_later(site: TokenSite, home: Home) -> None:
    """Keys and claim stay the same until the welcome is there, past the expiry too; then the root is pinned."""
    token, plane = site.token(), Plane()
    assert isinstance(ask(home, token, plane), Waiting)
    assert isinstance(ask(home, token, plane, token.expires_at + DAY), Waiting)
    assert plane.claims[0] == plane.claims[1]
    admit(site, token, plane)
    pins = ask(home, token, plane)
    assert isinstance(pins, SitePins)
    root = site.custody.root_key().public
    assert (root, "erin", "localhost:7") == (pins.root_public, pins.id, pins.endpoint)
    assert pins == home.pins()


@pytest.mark.parametrize("wait", [True, False])
def test_waiting_tells_once_and_asks_again(site: TokenSite, home: Home, wait: bool) -> None:
    """With `wait` it asks until the custodian has answered, telling once what is waited for; without, it ends."""
    token, plane = site.token(), Plane()
    told: list[Waiting] = []
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 2:
            admit(site, token, plane)

    text, place = token.export(), PersonPlace(home)
    found = wait_and_join(place, text, "localhost:7", lambda: NOW, told.append, wait=wait, sleep=sleep, dial=plane.dial)
    assert ([plane.claims[0].digest], 2 if wait else 0) == ([waiting.fingerprint for waiting in told], len(slept))
    assert (home.pins() if wait else None) == found


def test_another_root_is_refused_and_nothing_installed(site: TokenSite, home: Home, tmp_path: Path) -> None:
    """A whole other site behind the same address, welcome, roster and all, is not the one that the token pins."""
    token, plane = site.token(), Plane()
    ask(home, token, plane)
    other = TokenSite.found(tmp_path / "other")
    forged = other.token()
    admit_other = verify_candidate(other.custody, Claimed(other.issued(forged), Joiner.make().claim(forged)), now=NOW)
    plane.welcome, plane.roster = (
        admit_candidate(other.custody, admit_other, now=NOW),
        sign_next(other.custody, 30, now=NOW),
    )
    with pytest.raises(BindingError, match="another root than the enrolment token pins"):
        ask(home, token, plane)
    assert not (home.directory / "site.json").exists()


def test_a_welcome_that_the_root_did_not_sign_is_refused(site: TokenSite, home: Home) -> None:
    """The root's public key in a welcome proves nothing without its signature."""
    token, plane = site.token(), Plane()
    ask(home, token, plane)
    admit(site, token, plane)
    assert plane.welcome is not None
    plane.welcome = SigningKey.generate().sign(WELCOME_TYPE, plane.welcome.payload)
    with pytest.raises(SignatureError):
        ask(home, token, plane)


def test_somebody_elses_welcome_is_refused(site: TokenSite, home: Home) -> None:
    """A genuine welcome for another claim is not this machine's."""
    token, plane, other = site.token(), Plane(), Plane()
    ask(home, token, plane)
    other.claims.append(Joiner.make().claim(token))
    admit(site, token, other)
    plane.welcome, plane.roster = other.welcome, other.roster
    with pytest.raises(BindingError, match="another claim"):
        ask(home, token, plane)


def test_a_roster_without_these_keys_is_refused(site: TokenSite, home: Home) -> None:
    """A welcome with an older roster, which does not have the person, installs nothing."""
    token, plane = site.token(), Plane()
    ask(home, token, plane)
    old = site.custody.roster()
    admit(site, token, plane)
    plane.roster = old
    with pytest.raises(RosterError, match="erin"):
        ask(home, token, plane)
    assert not (home.directory / "site.json").exists()


def test_a_token_that_is_over_makes_no_claim(site: TokenSite, home: Home) -> None:
    """After the expiry a new claim is refused here, before anything is sent or made."""
    token, plane = site.token(), Plane()
    with pytest.raises(UsageError, match="expired at"):
        ask(home, token, plane, token.expires_at)
    assert ([], False) == (plane.claims, home.directory.exists())


def test_a_home_belongs_to_one_site(site: TokenSite, home: Home) -> None:
    """An enrolled home is not enrolled again: its pins stay."""
    token, plane = site.token(), Plane()
    ask(home, token, plane)
    admit(site, token, plane)
    ask(home, token, plane)
    with pytest.raises(HomeError, match="belongs to site test already"):
        ask(home, site.token(), Plane())


def test_a_key_that_the_site_does_not_take_is_named(site: TokenSite, home: Home) -> None:
    """A connection that breaks after the pinned server answered is the token's fault, and the words say so."""

    def refuse(request: object) -> object:
        raise Refusal(grpc.StatusCode.UNAVAILABLE, "Socket closed")

    with pytest.raises(ConnectError, match="does not take this enrolment token"):
        join(
            PersonPlace(home),
            site.token(),
            "localhost:7",
            NOW,
            dial=lambda token, endpoint: FakeChannel({"ClaimToken": refuse}),
        )


def test_the_text_of_a_token_keeps_everything(site: TokenSite) -> None:
    """Reading what was written gives the same token, the same keys and, bit for bit, the same certificate."""
    token = site.token()
    read = EnrolmentToken.parse(token.export())
    assert token == read
    assert (token.id, token.tls_sha256) == (read.id, read.tls_sha256)
    assert token.certificate_pem() == read.certificate_pem()
    assert token.secret.hex() not in repr(token)


def test_whatever_is_changed_in_a_token_changes_its_keys(site: TokenSite) -> None:
    """Root, server, expiry and site are part of what the keys come from."""
    token = site.token()
    changed = [
        EnrolmentToken(token.secret, "0" * 64, token.server_sha256, token.expires_at, token.site),
        EnrolmentToken(token.secret, token.root_sha256, "0" * 64, token.expires_at, token.site),
        EnrolmentToken(token.secret, token.root_sha256, token.server_sha256, token.expires_at + 1, token.site),
        EnrolmentToken(token.secret, token.root_sha256, token.server_sha256, token.expires_at, "other"),
    ]
    assert 5 == len({token.id, *(other.id for other in changed)})
    assert 5 == len({token.tls_sha256, *(other.tls_sha256 for other in changed)})


@pytest.mark.parametrize("position", [20, 60, 120, 160])
def test_a_damaged_token_is_named(site: TokenSite, position: int) -> None:
    """One changed character, or a missing end, is told before anything is asked of anybody."""
    text = site.token().export()
    other = "A" if text[position] != "A" else "B"
    for damaged in (text[:position] + other + text[position + 1 :], text[:position], "cloister-enrol-2.x", ""):
        with pytest.raises(CloisterError):
            EnrolmentToken.parse(damaged)


def test_a_welcome_is_read_strictly(site: TokenSite, tmp_path: Path) -> None:
    """A welcome's bytes are read back as they were written."""
    root = create_root(tmp_path / "another", "test").root_key()
    welcome = SignedWelcome("a" * 32, "b" * 64, "test", "erin", "", root.public, "ca", "certificate")
    host = SignedWelcome("a" * 32, "b" * 64, "test", "", "", root.public, "ca", "certificate", host="gpu2")
    assert [welcome, host] == [SignedWelcome.parse(w.to_payload()) for w in (welcome, host)]
