# SPDX-License-Identifier: Apache-2.0
"""Inputs of a small real job, by command line."""

from __future__ import annotations

from pathlib import Path

from live_site import LiveSite
from tiny_models import classification_rows

ENDED = ("JOB_STATE_SUCCEEDED", "JOB_STATE_FAILED", "JOB_STATE_CANCELLED")
SPEC = """\
model: tiny
training_dataset: rows
purpose: triage
suffix: {suffix}
max_attempts: {attempts}
data: {{validation_fraction: 0.1, evaluation_fraction: 0.2}}
method:
  classification:
    hyperparameters: {{n_epochs: {epochs}, batch_size: 8, micro_batch_size: 8, learning_rate: 0.02, n_checkpoints: 3}}
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


def write_spec(directory: Path, suffix: str = "tiny-tuned", epochs: int = 6, attempts: int = 3) -> Path:
    path = directory / f"{suffix}.yaml"
    path.write_text(SPEC.format(suffix=suffix, epochs=epochs, attempts=attempts))
    return path


def submit(site: LiveSite, spec: Path) -> str:
    """Queue a job; its id."""
    return site.ok("alice", "cloister", "job", "submit", str(spec)).out.strip()


def has_ended(site: LiveSite, job_id: str) -> bool:
    """Whether a job's state is final."""
    return site.read("alice", "cloister", "job", "show", job_id)["state"] in ENDED


def loaded_labels(base: Path, adapter: Path) -> int:
    """Number of classes of a pulled adapter, as plain peft loads it."""
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=3)
    return int(PeftModel.from_pretrained(model, adapter).config.num_labels)
