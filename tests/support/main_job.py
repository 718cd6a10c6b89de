# SPDX-License-Identifier: Apache-2.0
"""Inputs of a small real job, by command line."""

from __future__ import annotations

from pathlib import Path

from live_site import LiveSite
from tiny_models import classification_rows

SPEC = """\
model: tiny
training_dataset: rows
purpose: triage
suffix: {suffix}
data: {{validation_fraction: 0.1, evaluation_fraction: 0.2}}
method:
  classification:
    hyperparameters: {{n_epochs: {epochs}, batch_size: 8, micro_batch_size: 8, n_checkpoints: 3}}
adapter:
  lora: {{rank: 2, target_modules: [query, value]}}
"""


def prepare(site: LiveSite, tiny_model: Path, directory: Path, rows: bytes | None = None) -> None:
    """Import the model as `tiny` and push rows as `rows`."""
    site.ok(
        "alice", "cloister", "model", "import", str(tiny_model), "--name", "tiny", "--licence", "x", "--source", "t"
    )
    data = directory / "rows.jsonl"
    data.write_bytes(rows if rows is not None else classification_rows(90))
    site.ok("alice", "cloister", "dataset", "push", str(data), "--name", "rows", "--purpose", "triage")


def write_spec(directory: Path, suffix: str = "tiny-tuned", epochs: int = 2) -> Path:
    path = directory / f"{suffix}.yaml"
    path.write_text(SPEC.format(suffix=suffix, epochs=epochs))
    return path
