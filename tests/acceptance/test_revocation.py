# SPDX-License-Identifier: Apache-2.0
"""Somebody leaves: on a site of real processes, within a minute of the new roster, on open streams too."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloister.admin.admit import admit_person
from cloister.admin.custody import Custody
from cloister.home import Home, install_welcome, keygen
from cloister_dev.layout import TEAM
from cloister_dev.site import publish_policy
from live_site import BIN, LiveSite, live_site
from main_job import prepare, submit, write_spec
from second_host import admit_second_host, publish_roster
from site_log import about, logged, verified_log
from waiting import eventually

MINUTE = 60.0


@pytest.fixture
def site(tmp_path: Path, tiny_model: Path) -> Iterator[LiveSite]:
    """Two worker hosts on the roster, of which none works yet; alice's data wrapped to both; a second member."""
    with live_site(tmp_path / "site", start=False) as live:
        live.set_lease(5, sweep_seconds=1)
        live.start("server")
        publish_policy(live.layout)
        home = Home(live.layout.home("erin"))
        welcome = admit_person(Custody(live.layout.root), keygen(home), "erin", TEAM, ("member",), now=int(time.time()))
        install_welcome(home, welcome)
        admit_second_host(live, "worker-2")
        prepare(live, tiny_model, tmp_path)
        yield live


def retire(site: LiveSite, kind: str, name: str) -> None:
    """The custodian's command, and the admin's."""
    root = ("--dir", str(site.layout.root))
    site.ok("custodian", "cloister-admin", kind, "retire", name, *root)
    publish_roster(site)


def test_a_person_is_shut_out_of_open_streams(site: LiveSite, tmp_path: Path) -> None:
    """A member's open `job watch` ends with a refusal within a minute of the roster without them; so do new calls."""
    job_id = submit(site, write_spec(tmp_path, "watched"))
    watching = subprocess.Popen(
        [str(BIN / "cloister"), "job", "watch", job_id],
        env={**os.environ, "CLOISTER_HOME": str(site.layout.home("erin"))},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        eventually(lambda: started_watching(site), "erin's watch")
        assert watching.poll() is None
        retire(site, "person", "erin")
        _, said = watching.communicate(timeout=MINUTE)
    finally:
        watching.kill()
    assert 5 == watching.returncode, said
    assert "roster" in said
    refused = site.said("erin", "cloister", "job", "list")
    assert (5, "") == (refused.status, refused.out)
    assert 0 == site.said("alice", "cloister", "job", "show", job_id).status


def started_watching(site: LiveSite) -> bool:
    return logged(site, "job.watch") > 0


@pytest.mark.timeout(400)  # a job begun on one host and ended on another, on a machine that may be busy
def test_a_host_gets_nothing_more(site: LiveSite, tmp_path: Path) -> None:
    """A revoked host loses its running job, gets no lease and opens nothing; another host ends the job."""
    for name in ("keyagent-2", "agent-2"):
        site.start(name)
    job_id = submit(site, write_spec(tmp_path, "moved", epochs=40))
    eventually(lambda: logged(site, "job.open"), "an opening by worker-2")
    retire(site, "host", "worker-2")
    refused = site.running("agent-2").log
    eventually(lambda: "UNKNOWN_IDENTITY" in refused.read_text(), "the revoked host's own notice", seconds=MINUTE)
    for name in ("keyagent", "agent"):
        site.start(name)
    said = site.said("alice", "cloister", "job", "watch", job_id)
    assert 0 == said.status, f"{said.err}\n{site.logs()}"
    entries = about(verified_log(site, tmp_path), job_id)
    opened = [entry["actor"]["id"] for entry in entries if entry["action"] == "job.open"]
    ended = [entry["actor"]["id"] for entry in entries if entry["action"] == "job.end"]
    assert (["worker-2", "worker-1"], ["worker-1"]) == (opened, ended)
