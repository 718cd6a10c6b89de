# SPDX-License-Identifier: Apache-2.0
"""A dataset that grows and a model that goes on learning, by command line, against real processes."""

from __future__ import annotations

from pathlib import Path

import pytest

from live_site import LiveSite
from tiny_models import classification_rows

TUNE = (
    "cloister",
    "tune",
    "--method",
    "classify",
    "--set",
    "learning_rate=0.02",
    "--set",
    "lora.target_modules=[query, value]",
)


def test_a_revision_is_learned_on_top_of_the_version_before(site: LiveSite, tmp_path: Path) -> None:
    """The second job starts from the first one's result, trains on the new rows alone, replays the first revision, and
    its host signs what is forgotten of the rows that the first job held out.
    """
    lines = classification_rows(160).splitlines()
    for name, part in (("march", lines[:80]), ("april", lines[80:])):
        (tmp_path / f"{name}.jsonl").write_bytes(b"\n".join(part) + b"\n")
    push = ("cloister", "dataset", "push")
    first = site.ok(
        "alice", *push, str(tmp_path / "march.jsonl"), "--name", "tickets", "--purpose", "triage"
    ).out.strip()
    site.ok("alice", *TUNE, "--base", "tiny", "--data", "tickets", "--name", "router-march", "--watch")
    second = site.ok("alice", *push, str(tmp_path / "april.jsonl"), "--appends", "tickets").out.strip()
    shown = site.ok("alice", "cloister", "dataset", "show", "tickets").out
    assert f"builds on @1 {first} (80 rows)" in " ".join(shown.split())
    again = ("--base", "router-march", "--data", "tickets", "--replay", "tickets@1", "--name", "router-april")
    job_id = site.ok("alice", *TUNE, *again).out.strip()
    site.ok("alice", "cloister", "job", "watch", job_id)
    job = site.read("alice", "cloister", "job", "show", job_id)
    assert ("JOB_STATE_SUCCEEDED", second, first) == (job["state"], job["training_dataset"], job["replay_dataset"])
    march, april = (
        site.read("alice", "cloister", "model", "show", name)["dossier"] for name in ("router-march", "router-april")
    )
    signed, learnt = april["metrics_after"], march["metrics_after"]  # type: ignore[index]
    assert {"replay_loss", "forgetting", "eval_accuracy"} <= set(signed)
    # The same rows, so the second job starts where the first one ended.
    assert (learnt["eval_rows"], pytest.approx(float(learnt["eval_loss"]), abs=1e-4)) == (
        signed["replay_rows"],
        float(april["metrics_before"]["replay_loss"]),  # type: ignore[index]
    )
