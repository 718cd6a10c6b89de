# SPDX-License-Identifier: Apache-2.0
"""A site whose TLS certificates come from the organisation's own authority, of two levels, and from no other."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloister.admin.certificates import identity_uri
from cloister.home import Home
from cloister.tls import generate_tls_key, load_tls_key, make_csr, tls_key_pem
from cloister_dev.layout import HOST, SITE
from cloister_dev.site import publish_policy
from corporate_authority import Authority, corporate_root
from live_site import LiveSite, live_site
from main_job import prepare, submit, write_spec
from waiting import eventually

START = dt.datetime.now(dt.UTC) - dt.timedelta(minutes=5)


def csr_of(folder: Path) -> str:
    return make_csr(load_tls_key((folder / "tls.key").read_bytes()))


@pytest.fixture(scope="module")
def root() -> Authority:
    return corporate_root()


@pytest.fixture(scope="module")
def issuing(root: Authority) -> Authority:
    return root.authority("issuing 7")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, root: Authority, issuing: Authority) -> Iterator[LiveSite]:
    """Server, worker host, alice and dana have corporate certificates; the site's own authority counts no more."""
    folder = tmp_path_factory.mktemp("site")
    with live_site(folder / "site", start=False) as live:
        (folder / "root.crt").write_bytes(root.pem)
        custody = ("--dir", str(live.layout.root))
        live.ok("custodian", "cloister-admin", "root", "trust", str(folder / "root.crt"), *custody)
        server = live.layout.server
        (server / "tls.crt").write_bytes(issuing.issue(csr_of(server), ("localhost", "127.0.0.1"), START))
        (server / "ca.crt").write_bytes(root.pem)
        for kind, name, request, keys in (
            ("person", "alice", live.layout.home("alice"), live.layout.home("alice")),
            ("person", "dana", live.layout.home("dana"), live.layout.home("dana")),
            ("host", HOST, live.layout.worker, live.layout.worker / "agent"),
        ):
            certificate, welcome = folder / f"{name}.crt", folder / f"{name}.json"
            certificate.write_bytes(issuing.issue(csr_of(keys), (identity_uri(SITE, kind, name),), START))
            certify = (kind, "certify", str(request / "request.json"), "--id", name, *custody)
            given = ("--certificate", str(certificate), "-o", str(welcome))
            live.ok("custodian", "cloister-admin", *certify, *given)
        live.ok("custodian", "cloister-worker", "install", str(live.layout.worker), str(folder / f"{HOST}.json"))
        live.start("server", wait=False)
        for name in ("alice", "dana"):
            enroll = ("cloister", "enroll", str(folder / f"{name}.json"))
            eventually(lambda: live.said(name, *enroll).status == 0, f"the enrolment of {name}")  # noqa: B023 - used here
        for name in ("keyagent", "agent"):
            live.start(name)
        publish_policy(live.layout)
        yield live


def test_a_job_runs_under_the_corporate_authority(site: LiveSite, tiny_model: Path, tmp_path: Path) -> None:
    """Member, control plane and worker host find each other, and the job succeeds."""
    prepare(site, tiny_model, tmp_path)
    said = site.said("alice", "cloister", "job", "watch", submit(site, write_spec(tmp_path, "corporate")))
    assert 0 == said.status, f"{said.err}\n{site.logs()}"


def test_the_sites_own_authority_counts_no_more(site: LiveSite) -> None:
    """Carol, who has the certificate of the beginning, reaches nobody."""
    assert 3 == site.said("carol", "cloister", "job", "list").status


def test_the_name_in_a_corporate_certificate_makes_nobody(site: LiveSite, issuing: Authority) -> None:
    """A certificate in alice's name for another key is refused: the roster pins hers."""
    home = Home(site.layout.home("alice"))
    good = {name: home.read(name) for name in ("tls.crt", "tls.key")}
    key = generate_tls_key()
    forged = issuing.issue(make_csr(key), (identity_uri(SITE, "person", "alice"),), START)
    try:
        (home.directory / "tls.key").write_bytes(tls_key_pem(key))
        (home.directory / "tls.crt").write_bytes(forged)
        assert 5 == site.said("alice", "cloister", "job", "list").status
    finally:
        for name, data in good.items():
            (home.directory / name).write_bytes(data)
    assert 0 == site.said("alice", "cloister", "job", "list").status
