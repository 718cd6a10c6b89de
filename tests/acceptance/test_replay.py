# SPDX-License-Identifier: Apache-2.0
"""A job with a replay dataset, by command line, against real processes."""

from __future__ import annotations

from pathlib import Path

from live_site import LiveSite
from main_job import submit, write_spec
from tiny_models import classification_rows


def test_a_job_with_replay_rows_reports_what_is_forgotten(site: LiveSite, tmp_path: Path) -> None:
    """Earlier rows reach the trainer sealed as the others do, and what is forgotten of them stands in the result that
    the host signed.
    """
    earlier = tmp_path / "earlier.jsonl"
    # Rows that stand in the training dataset too would be left out of the replay.
    earlier.write_bytes(b"\n".join(classification_rows(190).splitlines()[90:]))
    site.ok("alice", "cloister", "dataset", "push", str(earlier), "--name", "earlier", "--purpose", "triage")
    spec = write_spec(tmp_path, "with-replay", epochs=1)
    spec.write_text(spec.read_text() + "replay_dataset: earlier\n")
    job_id = submit(site, spec)
    site.ok("alice", "cloister", "job", "watch", job_id)
    job = site.read("alice", "cloister", "job", "show", job_id)
    assert "JOB_STATE_SUCCEEDED" == job["state"]
    replayed = site.read("alice", "cloister", "dataset", "show", "earlier")["id"]
    assert replayed == job["replay_dataset"]
    signed = site.read("alice", "cloister", "model", "show", "with-replay")["dossier"]["metrics_after"]  # type: ignore[index]
    assert {"replay_loss", "forgetting"} <= set(signed)
