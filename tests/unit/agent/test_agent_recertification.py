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
from cloister_workers.agent.recertification import ASK_SECONDS, Recertification
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
        self.renewal = Recertification(folder, self.answer, self.said.append, self.clock)

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
    site.renewal.look()
    assert 0 == site.asked


def test_past_half_the_life_it_is_renewed(site: Site) -> None:
    """The new certificate is on disk, and the log says until when."""
    before = expires_at(site.file.read_bytes())
    site.clock.now = NOW + 50 * DAY
    site.renewal.look()
    assert expires_at(site.file.read_bytes()) > before
    assert ["renewed"] == [line["event"] for line in site.said]


def test_a_site_that_is_away_is_asked_again_after_an_hour(site: Site) -> None:
    """A failure keeps the certificate and the agent at work."""
    site.away, site.clock.now = True, NOW + 50 * DAY
    site.renewal.look()
    site.clock.now += ASK_SECONDS - 1
    site.renewal.look()
    assert 1 == site.asked
    site.clock.now += 1
    site.renewal.look()
    assert (2, "not_renewed") == (site.asked, site.said[-1]["event"])
