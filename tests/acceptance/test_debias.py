# SPDX-License-Identifier: Apache-2.0
"""A classifier with a skewed past is de-biased, by command line, against real processes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from live_site import LiveSite
from skewed_notes import notes, write_notes_bert

PLAIN = """model: notes-bert
training_dataset: past
purpose: screening
suffix: sorting
method: {classification: {hyperparameters: {n_epochs: 4, max_seq_length: 32, learning_rate: 0.01}}}
adapter: {lora: {target_modules: [query, value]}}
"""
FAIR = """model: sorting
training_dataset: past
evaluation_dataset: held-out
purpose: screening
suffix: sorting-fair
method:
  debias:
    task: classifier
    axes: [gender]
    seeds: 1
    mitigation: {name: counterfactual}
    hyperparameters: {n_epochs: 4, max_seq_length: 32, learning_rate: 0.01}
"""


# peft asks transformers for a property that has a new name by now: theirs to mend.
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
def test_from_a_skewed_past_to_a_signed_exception(site: LiveSite, tmp_path: Path) -> None:
    """The flip rate falls; too few notes leave the gate open; only an approved exception lets the version out."""
    job = debiased(site, tmp_path)

    # The member reads the report with names.
    folder = tmp_path / "report"
    site.ok("alice", "cloister", "job", "report", job, "-o", str(folder))
    report = json.loads((folder / "report.json").read_text("utf-8"))
    flips = next(entry for entry in report["measures"] if entry["name"] == "flip_rate")
    assert flips["change"]["high"] < 0
    assert (folder / "report.html").read_text("utf-8").startswith("<!doctype html>")
    assert report["verdict"] == "INCONCLUSIVE"

    # The auditor reads the same figures without names, and cannot open the report.
    figures = site.ok("carol", "cloister", "job", "report", job, "--numeric").out
    assert "INCONCLUSIVE" in figures
    assert "female" not in figures
    assert site.said("carol", "cloister", "job", "report", job, "-o", str(tmp_path / "no")).status != 0

    # An open gate holds the version back, even where the policy releases by itself.
    ask = ("alice", "cloister", "model", "release", "sorting-fair", "--reason", "the ward needs it")
    assert "INCONCLUSIVE" in site.said(*ask).err
    asked = json.loads(site.ok(*ask, "--exception", "--json").out)
    assert asked["state"] == "RELEASE_STATE_PENDING"
    site.ok("bob", "cloister", "model", "approve", asked["id"], "--reason", "reviewed", "--yes")
    pulled = tmp_path / "pulled"
    site.ok("alice", "cloister", "model", "pull", "sorting-fair", "-o", str(pulled))
    assert (pulled / "adapter_model.safetensors").is_file()


def debiased(site: LiveSite, folder: Path) -> str:
    """Import, push, train, de-bias; the job's id."""
    model = folder / "notes-bert"
    model.mkdir()
    write_notes_bert(model)
    site.ok(
        "alice",
        "cloister",
        "model",
        "import",
        str(model),
        "--name",
        "notes-bert",
        "--licence",
        "none",
        "--source",
        "test",
    )
    for name, rows in (("past", notes(300, skew=0.95, seed=1)), ("held-out", notes(120, skew=0.5, seed=2))):
        (folder / f"{name}.jsonl").write_bytes(rows)
        site.ok(
            "alice",
            "cloister",
            "dataset",
            "push",
            str(folder / f"{name}.jsonl"),
            "--name",
            name,
            "--purpose",
            "screening",
        )
    for name, text in (("plain", PLAIN), ("fair", FAIR)):
        (folder / f"{name}.yaml").write_text(text, "utf-8")
        site.ok("alice", "cloister", "job", "submit", str(folder / f"{name}.yaml"), "--watch")
    newest = site.read("alice", "cloister", "model", "show", "sorting-fair")
    return str(newest["id"])
