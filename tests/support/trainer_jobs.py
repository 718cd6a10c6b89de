# SPDX-License-Identifier: Apache-2.0
"""Whole training jobs in the test's own process, and what they told."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

import pytest
import torch

from cloister_workers.errors import Paused, RowsRefused
from cloister_workers.messages import DatasetRole, EvaluationPhase, MetricName, RowErrors, RowReason
from cloister_workers.trainer import job
from cloister_workers.trainer.bundle import read_bundle
from cloister_workers.trainer.debias.subjects.folders import write_folder
from cloister_workers.trainer.objectives import Objective
from cloister_workers.trainer.place import Workplace
from cloister_workers.trainer.session import Session
from cloister_workers.trainer.spec import TrainingSpec, parse_spec

R = TypeVar("R", bound="Recording")


class Recording(Protocol):
    """What the tests' recorder remembers of a job."""

    messages: list[object]
    bundles: list[bytes]

    def losses(self) -> list[float]: ...


def examples_of(objective: Objective, rows: Sequence[Mapping[str, object]]) -> list[Any]:
    """An example, or a reason, for each row."""
    return list(objective.read([dict(row) for row in rows]))


def job_spec(method: str, settings: Mapping[str, object] | None = None, **more: object) -> TrainingSpec:
    """A specification for tiny models; `more` are hyper-parameters, `adapter` and `data`."""
    top: dict[str, object] = {key: more.pop(key) for key in ("adapter", "data") if key in more}
    hyperparameters = {"batch_size": 8, "micro_batch_size": 8, "max_seq_length": 32, "learning_rate": 0.02, **more}
    spec: dict[str, object] = {"model": "tiny", "seed": "5", "adapter": {"full": {}}, **top}
    return parse_spec({**spec, "method": {method: {"hyperparameters": hyperparameters, **(settings or {})}}})


def run_job(
    spec: TrainingSpec,
    model_dir: Path,
    scratch: Path,
    recorder: R,
    training: bytes,
    *,
    auxiliary: str | Path = "",
    clock: Callable[[], float] | None = None,
    step: Callable[..., None] = job.run_job,
    **more: Any,  # noqa: ANN401 - bytes, beside what is named above
) -> R:
    """Runs to the end, and gives back the recorder. `more` are inputs by their role, `step` is what runs."""
    inputs = {DatasetRole(name): io.BytesIO(content) for name, content in {"training": training, **more}.items()}
    ticks = iter(range(1_000_000))
    told = clock or (lambda: float(next(ticks)))
    place = Workplace(str(model_dir), str(scratch), torch.device("cpu"), told, auxiliary_dir=str(auxiliary))
    step(spec, inputs, place, cast("Session", recorder))
    return recorder


def evaluated(recorder: Recording, phase: EvaluationPhase) -> dict[MetricName, float]:
    """The first metrics of this phase."""
    return next(entry[2] for entry in recorder.messages if isinstance(entry, tuple) and entry[0] is phase)


def measured(recorder: Recording) -> tuple[dict[str, float], dict[str, float]]:
    """Metrics on the evaluation part before and after training."""
    told = {entry[0]: entry[2] for entry in recorder.messages if isinstance(entry, tuple) and len(entry) > 2}
    return told[EvaluationPhase.BEFORE], told[EvaluationPhase.AFTER]


def refused(
    spec: TrainingSpec,
    model_dir: Path,
    scratch: Path,
    recorder: Recording,
    training: bytes,
    **more: Any,  # noqa: ANN401
) -> tuple[tuple[int, RowReason], ...]:
    """The numbers and reasons of the rows for which the job ends before any training."""
    with pytest.raises(RowsRefused):
        run_job(spec, model_dir, scratch, recorder, training, **more)
    assert [] == recorder.losses()
    (told,) = [message for message in recorder.messages if isinstance(message, RowErrors)]
    return told.errors


def check_resume(
    spec: TrainingSpec, model_dir: Path, scratch: Path, new_recorder: Callable[..., R], rows: bytes, at: int
) -> None:
    """Training that was stopped at step `at` and resumed has the losses and the result, bit for bit, of training that
    never stopped.
    """
    whole = run_job(spec, model_dir, scratch, new_recorder(), rows)
    first = new_recorder(pause_at=at)
    with pytest.raises(Paused):
        run_job(spec, model_dir, scratch, first, rows)
    second = run_job(spec, model_dir, scratch, new_recorder(), rows, checkpoint=first.bundles[-1])
    assert 0 < len(second.losses()) < len(whole.losses())
    assert whole.losses() == first.losses() + second.losses()
    assert whole.bundles[-1] == second.bundles[-1]
    assert whole.messages[-1] == second.messages[-1]


def unpack(recorder: Recording, folder: Path) -> Path:
    """The exported files in `folder`."""
    return write_folder(read_bundle(io.BytesIO(recorder.bundles[-1])), folder)
