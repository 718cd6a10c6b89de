# SPDX-License-Identifier: Apache-2.0
"""A job that starts from the result of another, by command line, against real processes."""

from __future__ import annotations

from pathlib import Path

import pytest

from live_site import LiveSite
from main_job import loaded_labels, submit, write_spec

ACCURACY = "eval_accuracy"


# peft asks transformers for a property that has a new name by now: theirs to mend.
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
def test_a_version_is_trained_on_and_stands_alone(site: LiveSite, tiny_model: Path, tmp_path: Path) -> None:
    """The second job measures first what the first measured last; its result loads on the base without the first."""
    first = run(site, write_spec(tmp_path, "gen-one", epochs=2))
    text = write_spec(tmp_path, "gen-two", epochs=2).read_text().replace("model: tiny", "model: gen-one")
    spec = tmp_path / "gen-two.yaml"
    spec.write_text(text.replace("rank: 2, ", ""))
    second = run(site, spec)
    one, two = (site.read("alice", "cloister", "model", "show", name) for name in ("gen-one", "gen-two"))
    assert one["dossier"]["metrics_after"][ACCURACY] == two["dossier"]["metrics_before"][ACCURACY]  # type: ignore[index]
    assert (one["base"], 1) == (two["base"], len(two["layers"]))  # type: ignore[arg-type]
    assert f"made from {first}" in " ".join(site.ok("alice", "cloister", "model", "show", second).out.split())
    site.ok("alice", "cloister", "model", "release", "gen-two", "--reason", "test")
    pulled = tmp_path / "pulled"
    site.ok("alice", "cloister", "model", "pull", "gen-two", "-o", str(pulled))
    assert 3 == loaded_labels(tiny_model, pulled)


def run(site: LiveSite, spec: Path) -> str:
    """Run a job to its end; its id."""
    job_id = submit(site, spec)
    site.ok("alice", "cloister", "job", "watch", job_id)
    return job_id
