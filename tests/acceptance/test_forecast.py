# SPDX-License-Identifier: Apache-2.0
"""When a waiting job would start, on a live site."""

from __future__ import annotations

from pathlib import Path

from live_site import LiveSite
from main_job import has_ended, submit, write_spec
from waiting import eventually


def test_a_waiting_job_is_told_when_the_running_one_lets_go(attentive_site: LiveSite, tmp_path: Path) -> None:
    """Behind a job whose trainer estimates its end a member reads a time, and none once the host takes no work."""
    site = attentive_site
    running = submit(site, write_spec(tmp_path, "long", epochs=400))
    eventually(lambda: "estimated_finish" in site.read("alice", "cloister", "job", "show", running), "it trains")
    waiting = submit(site, write_spec(tmp_path, "next"))
    assert "starts " in site.ok("alice", "cloister", "job", "show", waiting).out
    told = site.read("alice", "cloister", "job", "show", waiting)
    now = site.read("alice", "cloister", "job", "show", running)
    assert "forecast_start" not in now
    assert (0, True) == (told["jobs_ahead"], str(told["forecast_start"]) > str(now["started_at"]))
    site.ok("dana", "cloister", "worker", "cordon", "worker-1")
    assert "starts " not in site.ok("alice", "cloister", "job", "show", waiting).out
    for job_id in (waiting, running):
        site.ok("alice", "cloister", "job", "cancel", job_id)
    eventually(lambda: has_ended(site, running), "the running job ends")
