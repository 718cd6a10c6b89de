# SPDX-License-Identifier: Apache-2.0
"""Two workers, one job: the one that lost its lease writes nothing more."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloister_dev.site import publish_policy
from live_site import LiveSite, live_site
from main_job import prepare, submit, write_spec
from second_host import admit_second_host
from site_log import about, check_ended_once, entries_of, logged
from waiting import eventually


@pytest.fixture
def hasty_site(tmp_path: Path, tiny_model: Path) -> Iterator[LiveSite]:
    """A site with two hosts on its roster and leases of five seconds; only the first host runs."""
    with live_site(tmp_path / "site", start=False) as site:
        site.set_lease(5, sweep_seconds=1)
        site.start("server")
        publish_policy(site.layout)
        admit_second_host(site, "worker-2")
        # After the second host is on the roster, so that both can unwrap.
        prepare(site, tiny_model, tmp_path)
        for name in ("keyagent", "agent", "keyagent-2"):
            site.start(name)
        yield site


@pytest.mark.timeout(400)  # two attempts, the second after a lease has run out, on a machine that may be busy
def test_a_stopped_worker_writes_nothing_after_its_lease(hasty_site: LiveSite, tmp_path: Path) -> None:
    """A worker that stands still loses its job to another one, which resumes; woken up, it changes nothing."""
    site = hasty_site
    job_id = submit(site, write_spec(tmp_path, "taken-over", epochs=20))
    first = site.running("agent").process
    eventually(lambda: logged(site, "artifact.ready"), "a checkpoint", pause=0.01)
    first.send_signal(signal.SIGSTOP)
    try:
        site.start("agent-2")
        said = site.said("alice", "cloister", "job", "watch", job_id)
        assert 0 == said.status, f"{said.err}\n{site.logs()}"
    finally:
        first.send_signal(signal.SIGCONT)
    eventually(lambda: '"lease_lost"' in site.running("agent").log.read_text(), "the stale worker's own notice")
    check_ended_once(site, job_id, tmp_path)
    entries = about(entries_of(tmp_path / "log.tar"), job_id)
    ends = [(entry["actor"]["id"], entry["detail"]["attempt"]) for entry in entries if entry["action"] == "job.end"]
    assert [("worker-2", 2)] == ends
    resumed = [entry["detail"]["resume"] for entry in entries if entry["action"] == "job.lease"]
    assert resumed[0] == "" != resumed[1]
    _check_silence(tmp_path, job_id)


def _check_silence(directory: Path, job_id: str) -> None:
    """After the loss the log tells nothing of the first worker but refusals, and its question for other work."""
    entries = entries_of(directory / "log.tar")
    lost = next(entry["seq"] for entry in about(entries, job_id) if entry["action"] == "job.lease.lost")
    late = [entry for entry in entries if entry["seq"] > lost and entry["actor"]["id"] == "worker-1"]
    assert [] == [json.dumps(entry) for entry in late if entry["outcome"] == "ok"]
