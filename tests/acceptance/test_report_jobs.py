# SPDX-License-Identifier: Apache-2.0
"""Jobs that make no version, by command line, against real processes."""

from __future__ import annotations

import json
from pathlib import Path

from live_site import LiveSite
from main_job import submit, write_spec

EVALUATION = """\
model: {model}
evaluation_dataset: {rows}
purpose: triage
method: {{evaluation: {{task: classification}}}}
"""
INFERENCE = """\
model: {model}
evaluation_dataset: rows
purpose: triage
method: {{inference: {{task: classify}}}}
"""


def run(site: LiveSite, path: Path, text: str) -> str:
    path.write_text(text)
    job_id = submit(site, path)
    site.ok("alice", "cloister", "job", "watch", job_id)
    return job_id


def test_a_version_is_measured_released_and_answers(site: LiveSite, tmp_path: Path) -> None:
    """An evaluation of a candidate ends with a report and signed metrics; only the released version answers."""
    first = submit(site, write_spec(tmp_path, "judged", epochs=2))
    site.ok("alice", "cloister", "job", "watch", first)
    job_id = run(site, tmp_path / "e.yaml", EVALUATION.format(model="judged", rows="rows"))
    assert "" == site.read("alice", "cloister", "job", "show", job_id).get("fine_tuned_model", "")
    said = site.read("alice", "cloister", "job", "report", job_id, "-o", str(tmp_path / "report"))
    assert "eval_accuracy" in said["metrics"]  # type: ignore[operator]
    assert {"report.html", "report.json"} == {path.name for path in (tmp_path / "report").iterdir()}
    early = tmp_path / "i.yaml"
    early.write_text(INFERENCE.format(model="judged"))
    refused = site.said("alice", "cloister", "job", "submit", str(early))
    assert 0 != refused.status
    assert "release it first" in refused.err
    site.ok("alice", "cloister", "model", "release", "judged", "--reason", "test")
    answered = run(site, early, INFERENCE.format(model="judged"))
    said = site.read("alice", "cloister", "job", "report", answered, "-o", str(tmp_path / "answers"))
    lines = (tmp_path / "answers" / "predictions.jsonl").read_text().splitlines()
    assert 90 == len(lines)
    assert all(isinstance(json.loads(line), dict) for line in lines)
