# SPDX-License-Identifier: Apache-2.0
"""The main job by command line, against real processes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cloister_dev.found import verifier_key
from live_site import LiveSite
from main_job import loaded_labels, submit, write_spec
from site_log import about, entries_of


@pytest.fixture(scope="module")
def job(shared_site: LiveSite, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """A job that was watched to its end; every job takes seconds, so the tests of its traces share one."""
    shared_site.revive()
    job_id = submit(shared_site, write_spec(tmp_path_factory.mktemp("job"), "first"))
    shared_site.ok("alice", "cloister", "job", "watch", job_id)
    return shared_site.read("alice", "cloister", "job", "show", job_id)


# peft asks transformers for a property that has a new name by now: theirs to mend.
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
def test_a_sealed_dataset_becomes_a_released_model(
    site: LiveSite, job: dict[str, object], tiny_model: Path, tmp_path: Path
) -> None:
    """Push, train, evaluate, release and pull work by command line, and the result loads with plain peft."""
    assert "JOB_STATE_SUCCEEDED" == job["state"]
    assert job["id"] == job["fine_tuned_model"]
    assert 100.0 == job["progress"]["percent"]  # type: ignore[index]
    site.ok("alice", "cloister", "model", "release", "first", "--reason", "test")
    pulled = tmp_path / "pulled"
    site.ok("alice", "cloister", "model", "pull", "first", "-o", str(pulled))
    assert 3 == loaded_labels(tiny_model, pulled)


def test_the_log_of_a_job_verifies_and_a_changed_byte_shows(
    site: LiveSite, job: dict[str, object], tmp_path: Path
) -> None:
    """The auditor's export verifies offline; one changed byte ends with exit status 10."""
    export = tmp_path / "log.tar"
    site.ok("carol", "cloister", "audit", "export", str(export))
    key = verifier_key(site.layout.root)
    verified = site.ok("carol", "cloister-audit", "verify", str(export), "--key", key)
    for action in ("dataset.create", "job.submit", "job.lease", "job.open", "job.end"):
        assert action in verified.out
    forged = tmp_path / "forged.tar"
    forged.write_bytes(export.read_bytes().replace(b'"action":"job.submit"', b'"action":"job.cancel"', 1))
    assert 10 == site.said("carol", "cloister-audit", "verify", str(forged), "--key", key).status
    assert 10 == site.said("carol", "cloister", "audit", "verify", str(forged)).status


def test_the_opening_is_logged_before_the_end(site: LiveSite, job: dict[str, object], tmp_path: Path) -> None:
    """In the log every job.open precedes the job.end of the same job."""
    export = tmp_path / "log.tar"
    site.ok("carol", "cloister", "audit", "export", str(export))
    actions = [entry["action"] for entry in about(entries_of(export), str(job["id"]))]
    order = [actions.index(action) for action in ("job.submit", "job.lease", "job.open", "job.end")]
    assert sorted(order) == order
    assert 1 == actions.count("job.end")


def test_the_checkpoints_of_a_job_go_with_its_end(site: LiveSite, job: dict[str, object]) -> None:
    """Of all that the job stored only its result is left in the store, and the log says what was deleted."""
    store = site.layout.server / "blobs" / "blobs"
    stored = {path.name.partition(".")[2] for path in store.glob("*/*")}
    entries = json.loads(site.ok("carol", "cloister", "audit", "list", "--json").out)
    deleted = {entry["object"]["id"] for entry in entries if entry["action"] == "artifact.delete"}
    of_job = {
        entry["object"]["id"]
        for entry in entries
        if entry["action"] == "artifact.create" and entry["detail"]["job"] == job["id"]
    }
    assert len(of_job & deleted) == len(of_job) - 1 > 0
    assert of_job & stored == of_job - deleted


def test_a_member_may_not_read_the_log(site: LiveSite, tmp_path: Path) -> None:
    """Export by a member ends with exit status 5, one line on stderr, and an entry in the log."""
    said = site.said("alice", "cloister", "audit", "export", str(tmp_path / "log.tar"))
    assert (5, 1) == (said.status, len(said.err.strip().splitlines()))
    denied = json.loads(site.ok("carol", "cloister", "audit", "list", "--action", "method.denied", "--json").out)
    assert "alice" in {entry["actor"]["id"] for entry in denied}


def test_bad_rows_are_refused_before_sealing(site: LiveSite, tmp_path: Path) -> None:
    """A malformed row is named by number before anything is sealed, and its text is not shown."""
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"text": "fine", "label": "a"}\n{"text": "secret-word"\n')
    said = site.said("alice", "cloister", "dataset", "push", str(bad), "--name", "bad", "--purpose", "triage")
    assert 2 == said.status
    assert "2" in said.err
    assert "secret-word" not in said.err


def test_rows_that_only_the_method_can_judge_fail_with_numbers(site: LiveSite, tmp_path: Path) -> None:
    """Rows of the wrong shape for the method end the job before training, with row numbers in its events."""
    rows = tmp_path / "chat.jsonl"
    rows.write_text('{"prompt": "a", "completion": "b"}\n' * 20)
    site.ok("alice", "cloister", "dataset", "push", str(rows), "--name", "chat", "--purpose", "triage")
    spec = tmp_path / "spec.yaml"
    spec.write_text(
        write_spec(tmp_path, "wrong").read_text().replace("training_dataset: rows", "training_dataset: chat")
    )
    said = site.said("alice", "cloister", "job", "submit", str(spec), "--watch")
    assert 7 == said.status
    job = json.loads(site.ok("alice", "cloister", "job", "list", "--json").out)[0]
    assert "JOB_STATE_FAILED" == job["state"]
    assert "ROWS" in job["error"]["code"]


def test_an_unknown_field_in_a_spec_is_named(site: LiveSite, tmp_path: Path) -> None:
    """A misspelt hyper-parameter is refused before anything is sent."""
    spec = tmp_path / "spec.yaml"
    spec.write_text(write_spec(tmp_path, "typo").read_text().replace("n_epochs", "n_epoch"))
    said = site.said("alice", "cloister", "job", "submit", str(spec))
    assert 2 == said.status
    assert "n_epoch" in said.err
