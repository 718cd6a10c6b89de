# SPDX-License-Identifier: Apache-2.0
"""Certificates past half their life, on a site of real processes whose control plane has an issuing key."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloister.admin.certificates import identity_uri, issue_certificate
from cloister.admin.custody import Custody
from cloister.home import Home
from cloister.renewal import expires_at
from cloister.tls import load_tls_key, make_csr
from cloister_dev.layout import HOST, SITE
from live_site import LiveSite, live_site
from site_log import logged
from waiting import eventually

DAY = 24 * 3600


def age(site: LiveSite, folder: Path, kind: str, name: str, days: int) -> bytes:
    """Put a certificate of ninety days there that was issued so many days ago."""
    csr = make_csr(load_tls_key((folder / "tls.key").read_bytes()))
    names = (identity_uri(SITE, kind, name),)
    then = int(time.time()) - days * DAY
    pem = issue_certificate(Custody(site.layout.root).authority(), csr, names, 90, now=then)
    (folder / "tls.crt").write_text(pem)
    return pem.encode()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveSite]:
    """A site whose worker and whose member alice have old certificates."""
    with live_site(tmp_path_factory.mktemp("site"), start=False) as live:
        for name in ("ca.key", "ca.crt"):
            shutil.copy(live.layout.root / name, live.layout.server / f"issuing.{name[3:]}")
        config = live.layout.server_config
        keys = 'issuing_key = "issuing.key"\nissuing_certificate = "issuing.crt"\n'
        config.write_text(config.read_text().replace("[database]", f"{keys}\n[database]"))
        age(live, live.layout.worker / "agent", "host", HOST, 60)
        (live.layout.worker / "agent" / "agent.toml").write_text("threads = 1\npoll_seconds = 1\n")
        for program in ("server", "keyagent"):
            live.start(program)
        yield live


def test_a_command_renews_its_persons_certificate(site: LiveSite) -> None:
    """Any command past half the life renews, works, and is logged; the next one has nothing to do."""
    home = Home(site.layout.home("alice"))
    old, before = age(site, home.directory, "person", "alice", 60), logged(site, "certificate.renew")
    assert "" == site.ok("alice", "cloister", "dataset", "list", "--json").err
    new = home.read("tls.crt")
    assert expires_at(new) > expires_at(old)
    assert before + 1 == logged(site, "certificate.renew")
    site.ok("alice", "cloister", "dataset", "list")
    assert (new, before + 1) == (home.read("tls.crt"), logged(site, "certificate.renew"))


def test_an_agent_renews_its_certificate_and_goes_on_with_it(site: LiveSite) -> None:
    """The agent renews while it waits for work, and connects anew without a restart."""
    before = logged(site, "certificate.renew")
    agent = site.start("agent")
    eventually(lambda: '"tls_reloaded"' in agent.log.read_text(), "the agent's second connection")
    assert '"renewed"' in agent.log.read_text()
    assert agent.process.poll() is None
    assert before + 1 == logged(site, "certificate.renew")


def test_a_person_gets_new_keys_under_the_same_id(site: LiveSite, tmp_path: Path) -> None:
    """By keygen, rekey, publish and enroll the new home works; the old one is shut out."""
    root = ("--dir", str(site.layout.root))
    site.ok("carol.new", "cloister", "keygen")
    request = str(site.layout.home("carol.new") / "request.json")
    welcome = str(tmp_path / "welcome.json")
    site.ok("custodian", "cloister-admin", "person", "rekey", request, "--id", "carol", *root, "-o", welcome)
    site.ok("custodian", "cloister-admin", "roster", "sign", *root)
    site.ok("dana", "cloister-admin", "roster", "publish", str(site.layout.root / "roster.dsse"))
    site.ok("carol.new", "cloister", "enroll", welcome)
    assert "carol" == site.read("carol.new", "cloister", "whoami")["id"]
    assert 5 == site.said("carol", "cloister", "whoami").status


def test_an_expired_certificate_comes_back_by_the_custodian(site: LiveSite, tmp_path: Path) -> None:
    """An expired one is named with what to do, and just that works: the custodian certifies the same key again."""
    home = Home(site.layout.home("bob"))
    age(site, home.directory, "person", "bob", 91)
    said = site.said("bob", "cloister", "whoami")
    assert 2 == said.status
    assert "cloister-admin person certify" in said.err
    welcome = str(tmp_path / "welcome.json")
    request = (str(home.directory / "request.json"), "--id", "bob", "--dir", str(site.layout.root), "-o", welcome)
    site.ok("custodian", "cloister-admin", "person", "certify", *request)
    assert "bob" in site.ok("bob", "cloister", "enroll", welcome).out
    assert "bob" == site.read("bob", "cloister", "whoami")["id"]
