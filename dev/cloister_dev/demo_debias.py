# SPDX-License-Identifier: Apache-2.0
"""The second half of the demo: a classifier that learned a skewed past, measured, mitigated, and measured again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cloister_dev.demo import Demo

REPOSITORY = Path(__file__).resolve().parents[2]
SCREENING = REPOSITORY / "demo" / "screening"
ARITHMETIC = ("before", "after", "change")


def debias(demo: Demo) -> None:
    """Train on skewed decisions, de-bias, read the report, and look at it as an auditor."""
    demo.title("7  A second team job: a classifier trained on a skewed past")
    notes = demo.layout.directory / "notes"
    subprocess.run([sys.executable, str(SCREENING / "make.py"), str(notes)], check=True)
    for name, file in (("notes", "training.jsonl"), ("notes-test", "test.jsonl")):
        demo.run("alice", "cloister", "dataset", "push", str(notes / file), "--name", name, "--purpose", "screening")
    demo.run("alice", "cloister", "job", "submit", str(SCREENING / "train.yaml"), "--watch")

    demo.title("8  What the gate wants, before anybody spends a minute; then the job")
    demo.run("alice", "cloister", "job", "submit", str(SCREENING / "debias.yaml"), "--dry-run")
    demo.run("alice", "cloister", "job", "submit", str(SCREENING / "debias.yaml"), "--watch")
    job = demo.read("alice", "cloister", "job", "list")[0]["id"]

    demo.title("9  The report: sealed to alice and her team, opened here; the auditor gets the figures without names")
    folder = demo.layout.directory / "report"
    demo.run("alice", "cloister", "job", "report", job, "-o", str(folder))
    _show(demo, folder)
    demo.run("carol", "cloister", "job", "report", job, "--numeric")


def _show(demo: Demo, folder: Path) -> None:
    report = json.loads((folder / "report.json").read_text("utf-8"))
    for entry in report["measures"]:
        before, after, change = (_interval(entry[name]) for name in ARITHMETIC)
        demo.say(f"  {entry['title']:<28} {before:<24} -> {after:<24} change {change}")
    for entry in report["utilities"]:
        before, after, loss = (_interval(entry[name]) for name in ("before", "after", "loss"))
        demo.say(f"  {entry['title']:<28} {before:<24} -> {after:<24} loss   {loss}")
    demo.say(f"  {report['verdict']}; the page: {os.path.relpath(folder / 'report.html')}")


def _interval(estimate: dict[str, float | None]) -> str:
    value, low, high = (estimate[name] for name in ("value", "low", "high"))
    return f"{value:.3f} [{low:.3f}, {high:.3f}]" if None not in (value, low, high) else "–"
