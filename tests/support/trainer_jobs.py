# SPDX-License-Identifier: Apache-2.0
"""Whole training jobs in the test's own process, and what they told."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch


def job_spec(method: str, settings: Mapping[str, Any] | None = None, **more: Any) -> Any:
    """A specification for tiny models; `more` are hyper-parameters, `adapter` and `data`."""
    from cloister_workers.trainer.spec import parse_spec

    top = {key: more.pop(key) for key in ("adapter", "data") if key in more}
    hyperparameters = {"batch_size": 8, "micro_batch_size": 8, "max_seq_length": 32, "learning_rate": 0.02, **more}
    spec = {"model": "tiny", "seed": "5", "adapter": {"full": {}}, **top}
    return parse_spec(spec | {"method": {method: {"hyperparameters": hyperparameters, **(settings or {})}}})


def run_job(spec: Any, model_dir: Path, scratch: Path, recorder: Any, training: bytes, **more: bytes) -> Any:
    """Runs to the end, and gives back the recorder. `more` are inputs by their role."""
    from cloister_workers.messages import DatasetRole
    from cloister_workers.trainer import job
    from cloister_workers.trainer.place import Workplace

    inputs = {DatasetRole(name): io.BytesIO(content) for name, content in {"training": training, **more}.items()}
    ticks = iter(range(1_000_000))
    place = Workplace(str(model_dir), str(scratch), torch.device("cpu"), lambda: float(next(ticks)))
    job.run_job(spec, inputs, place, recorder)
    return recorder


def measured(recorder: Any) -> tuple[dict[str, float], dict[str, float]]:
    """Metrics on the evaluation part before and after training."""
    from cloister_workers.messages import EvaluationPhase

    told = {entry[0]: entry[2] for entry in recorder.messages if isinstance(entry, tuple) and len(entry) > 2}
    return told[EvaluationPhase.BEFORE], told[EvaluationPhase.AFTER]


def refused(spec: Any, model_dir: Path, scratch: Path, recorder: Any, training: bytes, **more: bytes) -> Any:
    """The numbers and reasons of the rows for which the job ends before any training."""
    from cloister_workers.errors import RowsRefused
    from cloister_workers.messages import RowErrors

    with pytest.raises(RowsRefused):
        run_job(spec, model_dir, scratch, recorder, training, **more)
    assert [] == recorder.losses()
    (told,) = [message for message in recorder.messages if isinstance(message, RowErrors)]
    return told.errors


def check_resume(spec: Any, model_dir: Path, scratch: Path, new_recorder: Any, rows: bytes, at: int) -> None:
    """Training that was stopped at step `at` and resumed has the losses and the result, bit for bit, of training that
    never stopped.
    """
    from cloister_workers.errors import Paused

    whole = run_job(spec, model_dir, scratch, new_recorder(), rows)
    first = new_recorder(pause_at=at)
    with pytest.raises(Paused):
        run_job(spec, model_dir, scratch, first, rows)
    second = run_job(spec, model_dir, scratch, new_recorder(), rows, checkpoint=first.bundles[-1])
    assert 0 < len(second.losses()) < len(whole.losses())
    assert whole.losses() == first.losses() + second.losses()
    assert whole.bundles[-1] == second.bundles[-1]


def unpack(recorder: Any, folder: Path) -> Path:
    """The exported files in `folder`."""
    from cloister_workers.trainer.bundle import read_bundle
    from cloister_workers.trainer.debias.subjects.folders import write_folder

    return write_folder(read_bundle(io.BytesIO(recorder.bundles[-1])), folder)
