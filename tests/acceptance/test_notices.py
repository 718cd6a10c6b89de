# SPDX-License-Identifier: Apache-2.0
"""Completion notices on a live site."""

from __future__ import annotations

import json
from pathlib import Path

from cloister_dev.site import publish_policy
from live_site import live_site
from main_job import prepare, submit, write_spec
from waiting import eventually


def test_a_notice_survives_a_kill_between_end_and_delivery(tmp_path: Path, tiny_model: Path) -> None:
    """The control plane is killed as the job's end is durable; after its restart the hook is told of it, once."""
    told = tmp_path / "told"
    hook = tmp_path / "hook"
    hook.write_text(f"#!/bin/sh\ncat >> {told}\n")
    hook.chmod(0o755)
    with live_site(tmp_path / "site", start=False) as site:
        config = site.layout.server_config
        config.write_text(config.read_text() + f'\n[notices]\ncommand = ["{hook}"]\n')
        assert "good" in site.ok("dana", "cloister-server", "check-config", "--config", str(config)).out
        site.start("server", crash_at="job.finish.after_commit")
        site.start("keyagent")
        site.start("agent")
        publish_policy(site.layout)
        prepare(site, tiny_model, tmp_path)
        job_id = submit(site, write_spec(tmp_path, "told"))
        site.running("server").process.wait(timeout=120)
        assert not told.exists()
        site.start("server")
        eventually(told.exists, "the hook is told")
        site.ok("alice", "cloister", "job", "watch", job_id)
        cancelled = submit(site, write_spec(tmp_path, "next"))
        site.ok("alice", "cloister", "job", "cancel", cancelled)
        eventually(lambda: 2 == told.read_text().count("\n"), "the hook is told of the next one")
    first, second = (json.loads(line) for line in told.read_text().splitlines())
    assert (job_id, "SUCCEEDED", "classification") == (first["job_id"], first["state"], first["method"])
    assert cancelled == second["job_id"]
