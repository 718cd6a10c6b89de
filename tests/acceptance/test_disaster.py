# SPDX-License-Identifier: Apache-2.0
"""The guide to disaster recovery, carried out: back up under load, lose the control plane, restore, go on."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from cloister_dev.site import publish_policy
from live_site import LiveSite, live_site
from main_job import prepare, submit, write_spec
from postgres_server import client_programs
from site_database import server_command, use_database
from site_log import about, verified_log
from waiting import eventually

ROLLBACK = "ROLLBACK"


def programs(backend: str) -> tuple[str, ...]:
    return ("--postgres-bin", str(client_programs())) if backend == "postgresql" else ()


def job_of(site: LiveSite, job_id: str) -> dict[str, object]:
    return site.read("alice", "cloister", "job", "show", job_id)


def begin(site: LiveSite, backend: str, postgres_url: Callable[[], str]) -> None:
    """Start the site on its database; leases are short, so that a lost one does not hold the test up."""
    site.set_lease(6, 1)
    if backend == "postgresql":
        use_database(site, postgres_url())
    assert 0 == server_command(site, "migrate").status
    site.start_all()
    publish_policy(site.layout)


def lose_control_plane(site: LiveSite, backend: str, postgres_url: Callable[[], str]) -> None:
    """Kill it, and take database and blobs away."""
    site.kill("server")
    for path in site.layout.server.glob("cloister.db*"):
        path.unlink()
    shutil.rmtree(site.layout.server / "blobs")
    if backend == "postgresql":
        use_database(site, postgres_url())


@pytest.mark.timeout(400)
@pytest.mark.parametrize("backend", ["sqlite", "postgresql"])
def test_a_lost_control_plane_comes_back(
    backend: str, tiny_model: Path, tmp_path: Path, postgres_url: Callable[[], str]
) -> None:
    """A backup under a running job, everything lost, a restore: results are there, the job that ran and a new one end,
    the log verifies, and until the root has signed nobody follows the shorter log.
    """
    with live_site(tmp_path / "site", start=False) as site:
        begin(site, backend, postgres_url)
        prepare(site, tiny_model, tmp_path)
        before = submit(site, write_spec(tmp_path, "before"))
        site.ok("alice", "cloister", "job", "watch", before)

        # A backup while a job runs, and work that goes on after it.
        during = submit(site, write_spec(tmp_path, "during", epochs=40))
        eventually(lambda: job_of(site, during)["state"] == "JOB_STATE_RUNNING", "the job runs")
        backups = str(tmp_path / "backups")
        made = server_command(site, "backup", "--to", backups, *programs(backend))
        assert 0 == made.status, made.err
        site.ok("alice", "cloister", "job", "cancel", during)
        site.ok("carol", "cloister", "audit", "verify")

        lose_control_plane(site, backend, postgres_url)
        head = str(tmp_path / "restored.checkpoint")
        done = server_command(site, "restore", "--from", backups, "--head-out", head, *programs(backend))
        assert 0 == done.status, done.err
        assert "lost: everything after" in done.out

        # Who saw more refuses the shorter log until the root has signed.
        site.kill("agent")
        site.start("server", wait=False)
        eventually(lambda: ROLLBACK in site.said("carol", "cloister", "audit", "verify").err, "a refusal")
        site.kill("server")
        root = ("--dir", str(site.layout.root))
        site.ok("dana", "cloister-admin", "log", "restored", head, *root)
        site.ok("dana", "cloister-admin", "roster", "sign", *root)
        site.start("server")
        site.start("agent")

        site.ok("carol", "cloister", "audit", "verify")
        site.ok("alice", "cloister", "model", "release", "before", "--reason", "test")
        site.ok("alice", "cloister", "model", "pull", "before", "-o", str(tmp_path / "pulled"))
        site.ok("alice", "cloister", "job", "watch", during)
        after = submit(site, write_spec(tmp_path, "after"))
        site.ok("alice", "cloister", "job", "watch", after)
        states = [job_of(site, job_id)["state"] for job_id in (before, during, after)]
        assert ["JOB_STATE_SUCCEEDED"] * 3 == states
        log = verified_log(site, tmp_path)
        restored = [entry["action"] for entry in log].index("site.restore")
        assert restored == log[restored]["detail"]["log_size"]
        assert "job.cancel" not in [entry["action"] for entry in about(log, during)]
