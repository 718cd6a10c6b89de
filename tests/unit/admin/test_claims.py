# SPDX-License-Identifier: Apache-2.0
"""The custodian against a hostile way: what the control plane could change in claims, and what is noticed."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cloister.admin.claims import (
    Candidate,
    Claimed,
    admit_candidate,
    read_claims,
    read_welcomes,
    verify_candidate,
    write_claims,
    write_welcomes,
)
from cloister.admin.draft import add_person
from cloister.enrolment_token import EnrolmentToken
from cloister.errors import UsageError
from cloister.evidence.canonical import JSON, canonical_bytes
from cloister.evidence.enrolment import IssuedToken, SignedWelcome, verify_welcome
from cloister.evidence.errors import BindingError, ExpiredError, FormatError, RosterError, SignatureError
from cloister.evidence.roster import Roster
from set_clock import NOW
from token_site import DAY, Joiner, TokenSite


@pytest.fixture
def site(tmp_path: Path) -> TokenSite:
    return TokenSite.found(tmp_path / "root")


@pytest.fixture
def token(site: TokenSite) -> EnrolmentToken:
    return site.token()


def verified(site: TokenSite, carried: Claimed) -> Candidate:
    return verify_candidate(site.custody, carried, now=NOW + DAY)


def test_a_claim_becomes_a_person_and_a_welcome(site: TokenSite, token: EnrolmentToken) -> None:
    """Through both files, the draft holds the claimed keys and the welcome is the root's, for this claim."""
    erin = Joiner.make()
    carried = read_claims(write_claims([Claimed(site.issued(token), erin.claim(token))]))
    candidate = verified(site, carried[0])
    signed = read_welcomes(write_welcomes([admit_candidate(site.custody, candidate, now=NOW + DAY)]))[0]
    welcome = verify_welcome(signed, token.root_sha256)
    person = site.custody.draft().person("erin")
    assert (erin.signing.public, ("member",)) == (person.signing_keys[0].public, person.roles)
    assert (token.id, carried[0].claim.digest) == (welcome.token_id, welcome.claim_sha256)


def test_admitting_again_signs_the_welcome_again(site: TokenSite, token: EnrolmentToken) -> None:
    """A welcome that was lost can be made again: nobody is listed twice."""
    candidate = verified(site, Claimed(site.issued(token), Joiner.make().claim(token)))
    first = admit_candidate(site.custody, candidate, now=NOW)
    again = admit_candidate(site.custody, candidate, now=NOW)
    place = [SignedWelcome.parse(s.payload).claim_sha256 for s in (first, again)]
    assert [candidate.fingerprint] * 2 == place
    assert 1 == [person.id for person in site.custody.draft().people].count("erin")


def test_a_claim_becomes_a_host(site: TokenSite, token: EnrolmentToken) -> None:
    """With a token for a host the draft certifies it in the token's pool, once, and the welcome names it as a host."""
    gpu = Joiner.make("host")
    candidate = verified(site, Claimed(site.issued(token, host="gpu2", pool="big"), gpu.claim(token)))
    signed = [admit_candidate(site.custody, candidate, now=NOW + DAY) for _ in range(2)]
    welcome = verify_welcome(signed[0], token.root_sha256)
    (host,) = site.custody.draft().hosts
    assert ("gpu2", "big", gpu.signing.public) == (host.id, host.pool, host.signing_keys[0].public)
    assert ("host", "gpu2", "") == (welcome.kind, welcome.holder, welcome.person)
    assert [] == [person.id for person in site.custody.draft().people if person.id == "gpu2"]


@pytest.mark.parametrize(("kind", "place"), [("person", {"host": "gpu2", "pool": "big"}), ("host", {})])
def test_keys_of_another_kind_are_refused(
    site: TokenSite, token: EnrolmentToken, kind: str, place: dict[str, str]
) -> None:
    """A person's keys become no host, nor a host's a person, whatever the control plane carries together."""
    with pytest.raises(BindingError, match="use it with cloister"):
        verified(site, Claimed(site.issued(token, **place), Joiner.make(kind).claim(token)))


@pytest.mark.parametrize("extra", [{"team": "alpha"}, {"roles": ["admin"]}, {"person": "erin"}, {"service": True}])
def test_a_host_is_nothing_else_too(extra: dict[str, JSON], site: TokenSite, token: EnrolmentToken) -> None:
    """A token that names a host and a person's place with it is no token."""
    payload = json.loads(site.issued(token, host="gpu2", pool="big").payload)
    with pytest.raises(FormatError, match="unknown field"):
        IssuedToken.parse(canonical_bytes({**payload, **extra}))


def test_the_control_plane_cannot_swap_the_keys_of_a_claim(site: TokenSite, token: EnrolmentToken) -> None:
    """A claim with other keys needs the token's secret, which the control plane never had."""
    honest = Joiner.make().claim(token)
    mallory = Joiner.make()
    with pytest.raises(SignatureError):
        verified(site, Claimed(site.issued(token), mallory.claim(site.token())))
    swapped = replace(honest, payload=mallory.claim(token).payload)
    with pytest.raises(SignatureError):
        verified(site, Claimed(site.issued(token), swapped))


def test_only_an_admin_of_the_roster_issues_tokens(site: TokenSite, token: EnrolmentToken) -> None:
    """A token that a member signed, or that nobody's key signed, admits nobody."""
    claim = Joiner.make().claim(token)
    with pytest.raises(RosterError, match="without being an admin"):
        verified(site, Claimed(site.issued(token, issuer="alice"), claim))
    stolen = replace(site.issued(token), payload=site.issued(token, roles=("admin",)).payload)
    with pytest.raises(SignatureError):
        verified(site, Claimed(stolen, claim))


def test_a_claim_counts_in_the_life_of_its_token(site: TokenSite, token: EnrolmentToken) -> None:
    """A claim dated at the expiry, or before the token was made, is refused."""
    for at in (token.expires_at, NOW - DAY):
        with pytest.raises(ExpiredError):
            verified(site, Claimed(site.issued(token), Joiner.make().claim(token, at)))


def test_a_token_of_another_root_or_site_is_refused(site: TokenSite, token: EnrolmentToken) -> None:
    """What a token pins must be this root and this site: its holder would refuse the welcome."""
    claim = Joiner.make().claim(token)
    with pytest.raises(BindingError, match="another root"):
        verified(site, Claimed(site.issued(token, root_sha256="a" * 64), claim))
    with pytest.raises(BindingError, match="site"):
        verified(site, Claimed(site.issued(token, site="other"), claim))


@pytest.mark.parametrize(
    "changes", [{"roles": ("root",)}, {"roles": ()}, {"expires_at": NOW}, {"expires_at": NOW + 31 * DAY}]
)
def test_a_token_says_what_it_may(site: TokenSite, token: EnrolmentToken, changes: dict[str, Any]) -> None:
    """Unknown or no roles, and a life of nothing or of more than thirty days, are no token."""
    with pytest.raises(FormatError):
        verified(site, Claimed(site.issued(token, **changes), Joiner.make().claim(token)))


def test_a_service_joins_and_approves_nothing(site: TokenSite, token: EnrolmentToken) -> None:
    """A pipeline's account keeps its mark from token to roster; neither a token nor a roster makes it an approver."""
    carried = Claimed(site.issued(token, service=True), Joiner.make().claim(token))
    admit_candidate(site.custody, verified(site, carried), now=NOW)
    draft = site.custody.draft()
    assert draft.person("erin").service
    assert draft == Roster.parse(draft.to_payload())
    for role in ("approver", "admin"):
        with pytest.raises(FormatError, match="a service has roles"):
            verified(site, Claimed(site.issued(token, service=True, roles=(role,)), Joiner.make().claim(token)))
        forged = tuple(replace(person, service=True, roles=(role,)) for person in draft.people)
        with pytest.raises(FormatError, match=f"may not be {role}"):
            Roster.parse(replace(draft, people=forged).to_payload())
        with pytest.raises(UsageError, match=f"may not be {role}"):
            add_person(draft, Joiner.make().request, "nightly", "alpha", [role], now=NOW, service=True)


def test_an_id_that_is_taken_is_refused(site: TokenSite, token: EnrolmentToken) -> None:
    """A token cannot replace the keys of somebody who is on the draft."""
    candidate = verified(site, Claimed(site.issued(token, person="alice"), Joiner.make().claim(token)))
    with pytest.raises(UsageError, match="in the draft already"):
        admit_candidate(site.custody, candidate, now=NOW)


@pytest.mark.parametrize("data", [b"", b"[]", b'{"claims": [{}]}', b'{"claims": [{"token": "x", "claim": "x"}]}'])
def test_a_file_that_is_none_is_refused(data: bytes) -> None:
    """Another file, or a damaged one, is named as such."""
    with pytest.raises(UsageError, match="token fetch"):
        read_claims(data)
