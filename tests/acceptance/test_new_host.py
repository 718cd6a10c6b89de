# SPDX-License-Identifier: Apache-2.0
"""A host that was certified later takes over what was adapted before it, on a site of real processes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from live_site import LiveSite, live_site
from main_job import prepare, submit, write_spec
from second_host import admit_second_host
from waiting import eventually


@pytest.fixture
def site(tmp_path: Path, tiny_model: Path) -> Iterator[LiveSite]:
    """Worker-1 made one version, released to alice, and another, which is a candidate; then worker-2 took its place."""
    with live_site(tmp_path / "site") as live:
        prepare(live, tiny_model, tmp_path)
        for name in ("released", "candidate"):
            job_id = submit(live, write_spec(tmp_path, name, epochs=1))
            live.ok("alice", "cloister", "job", "watch", job_id)
        live.ok("alice", "cloister", "model", "release", "released", "--reason", "test")
        live.ok("alice", "cloister", "model", "pull", "released", "-o", str(tmp_path / "pulled"))
        signed_at = int(time.time())
        # Times of documents are whole seconds: what is signed in the second of a retirement does not count.
        eventually(lambda: int(time.time()) > signed_at, "the next second")
        for name in ("agent", "keyagent"):
            live.stop(name)
        live.ok("custodian", "cloister-admin", "host", "retire", "worker-1", "--dir", str(live.layout.root))
        admit_second_host(live, "worker-2")
        yield live


def started_from(directory: Path, model: str) -> str:
    """A specification of a job that starts from a version."""
    path = write_spec(directory, f"on-{model}", epochs=1)
    path.write_text(path.read_text().replace("model: tiny", f"model: {model}").replace("rank: 2, ", ""))
    return str(path)


@pytest.mark.timeout(400)  # three jobs one after the other, on a machine that may be busy
def test_a_released_version_goes_on_at_a_later_host(site: LiveSite, tmp_path: Path) -> None:
    """The recovery key wraps datasets and base models, and tells of the versions; whom a version was released to wraps
    that, and a job that starts from it runs on the new host.  A candidate stays with the hosts that it was sealed to.
    """
    from_released, from_candidate = started_from(tmp_path, "released"), started_from(tmp_path, "candidate")
    owned = site.ok("alice", "cloister", "recovery", "rewrap", "--key", str(site.layout.recovery))
    assert "2 adapted versions are not wrapped to every host" in owned.err
    refused = site.said("alice", "cloister", "job", "submit", from_released)
    assert (1, True) == (refused.status, "holds a wrap of every input" in refused.err)

    wrapped = site.said("alice", "cloister", "model", "rewrap")
    lines = [line.split() for line in wrapped.out.splitlines()[1:]]
    assert {("released", "1"), ("candidate", "0")} == {(line[2], line[3]) for line in lines}
    assert (1, True) == (wrapped.status, "is not released to alice" in wrapped.err)

    for name in ("keyagent-2", "agent-2"):
        site.start(name)
    job_id = site.ok("alice", "cloister", "job", "submit", from_released).out.strip()
    said = site.said("alice", "cloister", "job", "watch", job_id)
    assert 0 == said.status, f"{said.err}\n{site.logs()}"
    still = site.said("alice", "cloister", "job", "submit", from_candidate)
    assert "holds a wrap of every input" in still.err
