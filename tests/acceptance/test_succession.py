# SPDX-License-Identifier: Apache-2.0
"""An owner leaves and a host is replaced, on a site of real processes: the team goes on with its recovery key."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloister.admin.admit import admit_person
from cloister.admin.custody import Custody
from cloister.home import Home, install_welcome, keygen
from cloister.sealed.keys import Identity
from cloister_dev.layout import TEAM
from cloister_dev.site import publish_policy
from live_site import LiveSite, live_site
from main_job import prepare, write_spec
from second_host import admit_second_host, publish_roster
from tiny_models import classification_rows
from waiting import eventually


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[LiveSite]:
    """Alice sealed everything to worker-1; then she and that host left, and worker-2 and erin came."""
    folder = tmp_path_factory.mktemp("site")
    with live_site(folder / "site", start=False) as live:
        live.start("server")
        publish_policy(live.layout)
        prepare(live, tiny_model, folder, classification_rows(90))
        sealed_at = int(time.time())
        # Times of documents are whole seconds: what is signed in the second of a retirement does not count.
        eventually(lambda: int(time.time()) > sealed_at, "the next second")
        home = Home(live.layout.home("erin"))
        custody = Custody(live.layout.root)
        install_welcome(home, admit_person(custody, keygen(home), "erin", TEAM, ("member",), now=int(time.time())))
        root = ("--dir", str(live.layout.root))
        live.ok("custodian", "cloister-admin", "person", "retire", "alice", *root)
        live.ok("custodian", "cloister-admin", "host", "retire", "worker-1", *root)
        admit_second_host(live, "worker-2")
        publish_roster(live)
        yield live


def test_what_an_owner_left_is_opened_by_the_team(site: LiveSite, tmp_path: Path) -> None:
    """Another member opens the dataset with the recovery key: the very rows; with another key nothing appears."""
    key = ("--key", str(site.layout.recovery))
    rows = tmp_path / "rows.jsonl"
    said = site.ok("erin", "cloister", "recovery", "open", "rows", *key, "-o", str(rows))
    assert "by alice" in said.out
    assert classification_rows(90) == rows.read_bytes()
    other = tmp_path / "other.key"
    other.write_text(f"{Identity.generate()}\n")
    refused = site.said("erin", "cloister", "recovery", "open", "rows", "--key", str(other), "-o", str(tmp_path / "no"))
    assert 1 == refused.status
    assert "not sealed to the key" in refused.err
    assert not (tmp_path / "no").exists()


@pytest.mark.timeout(300)  # a real job on a machine that may be busy
def test_a_new_host_works_on_what_was_sealed_before_it(site: LiveSite, tmp_path: Path) -> None:
    """Before the wraps no host can run the job; after them it runs on the new host, and nothing is left to wrap."""
    spec = str(write_spec(tmp_path, "goes-on"))
    refused = site.said("erin", "cloister", "job", "submit", spec)
    assert 1 == refused.status, refused.err
    assert "holds a wrap of every input" in refused.err
    key = ("--key", str(site.layout.recovery))
    first = site.ok("erin", "cloister", "recovery", "rewrap", *key).out.splitlines()
    assert ["1", "1"] == [line.split()[-1] for line in first[1:]]
    again = site.ok("erin", "cloister", "recovery", "rewrap", *key).out.splitlines()
    assert ["0", "0"] == [line.split()[-1] for line in again[1:]]
    for name in ("keyagent-2", "agent-2"):
        site.start(name)
    job_id = site.ok("erin", "cloister", "job", "submit", spec).out.strip()
    said = site.said("erin", "cloister", "job", "watch", job_id)
    assert 0 == said.status, f"{said.err}\n{site.logs()}"
