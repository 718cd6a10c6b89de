# SPDX-License-Identifier: Apache-2.0
"""New keys for somebody who stays."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloister.admin.admit import rekey_person
from cloister.admin.draft import retire_person
from cloister.errors import UsageError
from cloister.tls import load_csr, spki_sha256
from set_clock import NOW
from token_site import DAY, Joiner, TokenSite


@pytest.fixture
def site(tmp_path: Path) -> TokenSite:
    return TokenSite.found(tmp_path / "root")


def test_new_keys_replace_the_old_ones(site: TokenSite) -> None:
    """The old signing key is retired and still listed, the old TLS key is gone, and roles and team stay."""
    before, fresh = site.custody.draft().person("alice"), Joiner.make()
    welcome = rekey_person(site.custody, fresh.request, "alice", now=NOW + DAY)
    after = site.custody.draft().person("alice")
    old, new = after.signing_keys
    assert (before.signing_keys[0].public, NOW + DAY) == (old.public, old.retired_at)
    assert (fresh.signing.public, NOW + DAY, None) == (new.public, new.not_before, new.retired_at)
    assert (spki_sha256(load_csr(fresh.request.csr_pem)),) == after.tls_sha256
    assert (before.roles, before.team, fresh.request.recipient) == (after.roles, after.team, after.recipient)
    assert ("alice", "person") == (welcome.id, welcome.kind)


def test_only_somebody_who_is_there_gets_other_keys(site: TokenSite) -> None:
    """Nobody, somebody who has left, keys of before and keys of somebody else are refused; the draft stays."""
    custody = site.custody
    draft = custody.draft()
    for request, person in (
        (Joiner.make().request, "nobody"),
        (site.member.request, "alice"),
        (site.admin.request, "alice"),
    ):
        with pytest.raises(UsageError):
            rekey_person(custody, request, person, now=NOW + DAY)
    custody.save_draft(retire_person(draft, "alice", now=NOW))
    with pytest.raises(UsageError, match="has left"):
        rekey_person(custody, Joiner.make().request, "alice", now=NOW + DAY)
    assert retire_person(draft, "alice", now=NOW) == custody.draft()
