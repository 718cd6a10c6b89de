# SPDX-License-Identifier: Apache-2.0
"""A job that is paused in the middle and goes on, with real processes."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloister import Client
from live_site import LiveSite
from main_job import submit, write_spec
from waiting import eventually

EPOCHS = 400
"""So many that a tiny model trains for several times the two seconds in which the pause reaches it."""


def losses(site: LiveSite, job_id: str) -> dict[int, float]:
    """Loss by step, as the events have it."""
    with Client.open(site.layout.home("alice")) as client:
        return {int(step): loss for step, loss in client.jobs.curves(job_id).training}


@pytest.mark.timeout(400)  # two jobs, one of them twice, on a machine that may be busy
def test_a_paused_job_goes_on_as_if_it_had_not_been(attentive_site: LiveSite, tmp_path: Path) -> None:
    """Paused while it trains and resumed, a job has the very losses of one that was left alone."""
    site = attentive_site
    alone = submit(site, write_spec(tmp_path, "alone", epochs=EPOCHS))
    assert 0 == site.said("alice", "cloister", "job", "watch", alone).status
    job_id = submit(site, write_spec(tmp_path, "paused", epochs=EPOCHS))
    with Client.open(site.layout.home("alice")) as client:
        eventually(lambda: client.jobs.curves(job_id).training, "a step", pause=0.01)
        client.jobs.pause(job_id)

    def state() -> object:
        return site.said("alice", "cloister", "job", "show", job_id, "--json").json()["state"]

    eventually(lambda: state() == "JOB_STATE_PAUSED", "the pause", pause=0.1)
    before = losses(site, job_id)
    assert 0 < len(before) < len(losses(site, alone))
    assert 0 == site.said("alice", "cloister", "job", "resume", job_id).status
    watched = site.said("alice", "cloister", "job", "watch", job_id)
    assert 0 == watched.status, f"{watched.err}\n{site.logs()}"
    assert losses(site, alone) == losses(site, job_id)
