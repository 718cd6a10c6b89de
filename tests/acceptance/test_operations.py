# SPDX-License-Identifier: Apache-2.0
"""Maintenance and draining by command line, on a live site."""

from __future__ import annotations

import json
from pathlib import Path

from live_site import LiveSite
from main_job import has_ended, submit, write_spec
from waiting import eventually


def test_maintenance_is_told_and_ends(site: LiveSite, tmp_path: Path) -> None:
    """A member who submits is told the admin's words; after the end the same command works."""
    spec = write_spec(tmp_path, "patient")
    site.ok("dana", "cloister", "maintenance", "begin", "--reason", "new disks", "--until", "2030-01-01")
    said = site.said("alice", "cloister", "job", "submit", str(spec))
    assert 0 != said.status
    assert "new disks" in said.err
    assert "2030-01-01" in site.ok("alice", "cloister", "maintenance", "show").out
    assert 5 == site.said("alice", "cloister", "maintenance", "end").status
    site.ok("dana", "cloister", "maintenance", "end")
    job_id = submit(site, spec)
    site.ok("alice", "cloister", "job", "watch", job_id)


def test_a_drained_agent_ends_after_its_job(attentive_site: LiveSite, tmp_path: Path) -> None:
    """The job that runs ends well, its agent then ends by itself, and takes work again once it is let."""
    site = attentive_site
    # So many epochs that it still trains when the worker hears that it is drained.
    job_id = submit(site, write_spec(tmp_path, "last", epochs=400))
    eventually(lambda: _worker(site)["work_id"] == job_id, "the job runs")
    assert job_id in site.ok("dana", "cloister", "worker", "drain", "worker-1").out
    assert 0 == site.running("agent").process.wait(timeout=120)
    assert has_ended(site, job_id)
    assert "JOB_STATE_SUCCEEDED" == site.read("alice", "cloister", "job", "show", job_id)["state"]
    waiting = submit(site, write_spec(tmp_path, "next"))
    site.ok("dana", "cloister", "worker", "uncordon", "worker-1")
    site.revive()
    site.ok("alice", "cloister", "job", "watch", waiting)
    worker = _worker(site)
    assert ("WORKER_MODE_ACTIVE", True) == (worker["mode"], worker["sandboxed"])


def _worker(site: LiveSite) -> dict[str, object]:
    found = json.loads(site.ok("dana", "cloister", "worker", "list", "--json").out)
    assert 1 == len(found)
    values: dict[str, object] = found[0]
    return values
