# SPDX-License-Identifier: Apache-2.0
"""The root is lost and restored, stolen and replaced, on a site of real processes: docs/how-to, carried out."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cloister.admin.admit import admit_host
from cloister.admin.custody import Custody
from cloister.admin.sign import sign_next
from cloister.evidence.roster import ROSTER_TYPE, Roster
from cloister.evidence.signatures import SigningKey, b64
from cloister_dev.site import publish_policy
from cloister_workers import init as worker
from live_site import LiveSite, Said, live_site
from main_job import prepare, submit, write_spec

PASSPHRASE = "several words of a passphrase"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[LiveSite]:
    """A site that works."""
    folder = tmp_path_factory.mktemp("site")
    with live_site(folder / "site", start=False) as live:
        live.start_all()
        publish_policy(live.layout)
        prepare(live, tiny_model, folder)
        yield live


def custodian(site: LiveSite, *arguments: str) -> Said:
    return site.ok("custodian", "cloister-admin", *arguments, "--dir", str(site.layout.root))


def publish(site: LiveSite) -> None:
    custodian(site, "roster", "sign")
    site.ok("dana", "cloister-admin", "roster", "publish", str(site.layout.root / "roster.dsse"))


def root_shown(site: LiveSite, person: str) -> str:
    lines = dict(line.split(maxsplit=1) for line in site.ok(person, "cloister", "whoami").out.splitlines())
    return lines["root"]


def test_a_lost_root_comes_back_from_its_backup(site: LiveSite, tmp_path: Path) -> None:
    """The directory is gone, its backup older than the roster; brought up to that one it signs the next."""
    backup, in_force = tmp_path / "root.backup", tmp_path / "in-force.dsse"
    (tmp_path / "passphrase").write_text(PASSPHRASE + "\n")
    passphrase = ("--passphrase-file", str(tmp_path / "passphrase"))
    custodian(site, "root", "backup", "-o", str(backup), *passphrase)
    publish(site)
    site.ok("dana", "cloister-admin", "roster", "fetch", "-o", str(in_force))
    before = Roster.parse(Custody(site.layout.root).roster().payload).version
    recovery = site.layout.recovery.read_bytes()
    shutil.rmtree(site.layout.root)
    custodian(site, "root", "restore", str(backup), *passphrase)
    site.layout.recovery.write_bytes(recovery)
    assert "version" in custodian(site, "roster", "adopt", str(in_force)).out
    publish(site)
    assert before + 1 == Roster.parse(Custody(site.layout.root).roster().payload).version
    assert 0 == site.said("alice", "cloister", "dataset", "list").status


@pytest.mark.timeout(300)  # a real job on a machine that may be busy
def test_a_stolen_root_is_replaced_and_shut_out(site: LiveSite, tmp_path: Path) -> None:
    """After a rotation everybody follows by themselves, jobs run, and what the thief signs is refused everywhere."""
    stolen = Custody(site.layout.root).root_key()
    old = root_shown(site, "alice")
    assert stolen.key_id == old
    custodian(site, "root", "rotate")
    publish(site)
    new = Custody(site.layout.root).root_key()
    assert [new.key_id] * 2 == [root_shown(site, person) for person in ("alice", "carol")]
    job_id = submit(site, write_spec(tmp_path, "after-rotation"))
    said = site.said("alice", "cloister", "job", "watch", job_id)
    assert 0 == said.status, f"{said.err}\n{site.logs()}"
    assert b64(new.public) in (site.layout.worker / "keyagent" / "state.json").read_text()
    refused = site.said("dana", "cloister-admin", "roster", "publish", str(thiefs_roster(site, stolen, tmp_path)))
    assert 6 == refused.status, refused.err
    assert "not signed by the site's root" in refused.err


def thiefs_roster(site: LiveSite, stolen: SigningKey, folder: Path) -> Path:
    """A newer roster, signed by the old root."""
    roster = Roster.parse(Custody(site.layout.root).roster().payload)
    forged = replace(roster, version=roster.version + 10, successions=())
    path = folder / "forged.dsse"
    path.write_bytes(stolen.sign(ROSTER_TYPE, forged.to_payload()).to_bytes())
    return path


def test_a_server_and_a_key_agent_that_start_anew_follow_too(site: LiveSite, tmp_path: Path) -> None:
    """With the first root in their configuration they take the newest roster; a new person and host pin the new one."""
    for name in ("agent", "keyagent", "server"):
        site.stop(name)
    site.start_all()
    assert Custody(site.layout.root).root_key().key_id == root_shown(site, "bob")
    custody, now = Custody(site.layout.root), int(time.time())
    request = worker.init_host(tmp_path / "worker-9")
    worker.install_welcome(tmp_path / "worker-9", admit_host(custody, request, "worker-9", "default", now=now))
    assert custody.root_public() == (tmp_path / "worker-9" / "keyagent" / "root.pub").read_text()
    sign_next(custody, 30, now=now)
    site.ok("dana", "cloister-admin", "roster", "publish", str(site.layout.root / "roster.dsse"))
    assert 0 == site.said("alice", "cloister", "dataset", "list").status
