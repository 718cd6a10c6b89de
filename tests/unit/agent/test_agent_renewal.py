# SPDX-License-Identifier: Apache-2.0
"""The agent's certificate between two pieces of work."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from cloister.admin.certificates import create_authority, issue_certificate
from cloister.errors import ConnectError
from cloister.renewal import expires_at
from cloister.tls import generate_tls_key, make_csr, tls_key_pem
from cloister_workers.agent.renewal import ASK_SECONDS, Renewal
from set_clock import NOW, Clock

DAY = 24 * 3600
URI = ("cloister://test/host/gpu-1",)


class Site:
    """An authority, an agent's folder, and how often it was asked."""

    def __init__(self, folder: Path) -> None:
        self.clock = Clock()
        self.authority = create_authority("test", NOW)
        self.asked = 0
        self.away = False
        self.said: list[Mapping[str, object]] = []
        key = generate_tls_key()
        self.csr = make_csr(key)
        self.file = folder / "tls.crt"
        self.file.write_text(issue_certificate(self.authority, self.csr, URI, 90, now=NOW))
        (folder / "tls.key").write_bytes(tls_key_pem(key))
        self.renewal = Renewal(folder, self.file.read_bytes(), self.answer, self.said.append, self.clock)

    def answer(self, csr_pem: str) -> str:
        self.asked += 1
        if self.away:
            raise ConnectError("away")
        return issue_certificate(self.authority, csr_pem, URI, 90, now=self.clock.now)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_nothing_happens_before_half_the_life(site: Site) -> None:
    """A young certificate is left alone."""
    site.clock.now = NOW + 40 * DAY
    assert not site.renewal.due()
    assert 0 == site.asked


def test_past_half_the_life_it_is_renewed(site: Site) -> None:
    """The new certificate is on disk, and the caller is told to connect with it."""
    before = expires_at(site.file.read_bytes())
    site.clock.now = NOW + 50 * DAY
    assert site.renewal.due()
    assert expires_at(site.file.read_bytes()) > before
    assert ["renewed"] == [line["event"] for line in site.said]


def test_a_site_that_is_away_is_asked_again_after_an_hour(site: Site) -> None:
    """A failure keeps the certificate and the agent at work."""
    site.away, site.clock.now = True, NOW + 50 * DAY
    assert not site.renewal.due()
    site.clock.now += ASK_SECONDS - 1
    assert not site.renewal.due()
    assert 1 == site.asked
    site.clock.now += 1
    assert not site.renewal.due()
    assert (2, "not_renewed") == (site.asked, site.said[-1]["event"])


def test_a_certificate_that_was_put_there_is_taken_up(site: Site) -> None:
    """An authority outside replaces the file; the agent connects with it and asks nobody."""
    site.file.write_text(issue_certificate(site.authority, site.csr, URI, 90, now=NOW + DAY))
    assert site.renewal.due()
    assert 0 == site.asked
