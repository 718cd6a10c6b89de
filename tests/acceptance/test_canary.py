# SPDX-License-Identifier: Apache-2.0
"""Promise 1: the control plane never holds plaintext or a key that opens it."""

from __future__ import annotations

import json
import secrets
from pathlib import Path

import pytest

import canary
from live_site import LiveSite
from main_job import write_spec
from tiny_models import write_bert

WORDS = ["alpha", "bravo", "charlie", "delta", "echo", "foxtrot", "golf", "hotel"]


def new_word(kind: str) -> str:
    return f"canary{kind}{secrets.token_hex(12)}"


def rows_with(text: str, label: str, extra: str, key: str) -> bytes:
    """Ninety rows of three labels, told by the first word; one label, and words of many rows, are planted."""
    lines = []
    for n in range(90):
        row = {"text": f"{WORDS[n % 3]} {text} {WORDS[n * 3 % 7]} {n}", "label": (label, "b", "c")[n % 3]}
        lines.append(json.dumps({**row, key: extra} if n % 5 == 0 else row))
    return "\n".join(lines).encode()


def test_a_whole_job_leaves_no_trace_of_its_data(site: LiveSite, tmp_path: Path) -> None:
    """Words in rows, labels, columns, file names and model files reach no file, log or memory of the control plane."""
    text, label, extra, column, filename, folder, readme = (new_word(k) for k in "tlecfdr")
    hidden = [text, label, extra, column, filename, folder, readme]
    named = new_word("n")
    model = write_bert(tmp_path / f"model-{folder}")
    (model / "README.md").write_text(f"about {readme}\n")
    data = tmp_path / f"{filename}.jsonl"
    data.write_bytes(rows_with(text, label, extra, column))
    importing = ("cloister", "model", "import", str(model), "--name", "seeded", "--licence", "x", "--source", "t")
    site.ok("alice", *importing)
    site.ok("alice", "cloister", "dataset", "push", str(data), "--name", named, "--purpose", "triage")
    spec = write_spec(tmp_path, "canary")
    wanted = {"model: tiny": "model: seeded", "training_dataset: rows": f"training_dataset: {named}"}
    for old, new in wanted.items():
        assert old in spec.read_text()
        spec.write_text(spec.read_text().replace(old, new))
    site.ok("alice", "cloister", "job", "submit", str(spec), "--watch")
    site.ok("alice", "cloister", "model", "release", "canary", "--reason", "test")
    site.ok("alice", "cloister", "model", "pull", "canary", "-o", str(tmp_path / "pulled"))
    assert label in (tmp_path / "pulled" / "config.json").read_text(), "the recipient gets the labels"
    # The search itself must be able to fail: a dataset's name is visible by design, and is found.
    assert found_in_control_plane(site, [named])
    assert {} == found_in_control_plane(site, hidden)


def found_in_control_plane(site: LiveSite, words: list[str]) -> dict[str, list[str]]:
    """Where the control plane's files, database, logs and memory hold a word."""
    places = {
        "files": canary.in_files(site.layout.server, words),
        "logs": canary.in_files(site.layout.log, words),
        "memory": canary.in_memory(site.running("server").process.pid, words),
    }
    return {place: hits for place, hits in places.items() if hits}


@pytest.mark.parametrize("form", canary.forms("canary-word-42"))
def test_the_search_finds_every_form(tmp_path: Path, form: str) -> None:
    """A leaking build is noticed: each form is found in a file, whatever stands around it."""
    leak = canary.forms("canary-word-42")[form]
    (tmp_path / "leak").write_bytes(b"x" * 1000 + leak + b"y" * 1000)
    assert [str(tmp_path / "leak")] == canary.in_files(tmp_path, ["canary-word-42"])
    (tmp_path / "leak").write_bytes(b"x" * 1000 + leak[:-1] + b"y" * 1000)
    assert [] == canary.in_files(tmp_path, ["canary-word-42"])
