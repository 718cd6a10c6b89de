# SPDX-License-Identifier: Apache-2.0
"""Where a job runs, and what it is given: directories, device, clock, inputs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO

import torch

from cloister_workers.errors import SpecError
from cloister_workers.protocol import DatasetRole, FailureCode, SpecField, Stage, StageStatus
from cloister_workers.trainer.layer import unpack_layer
from cloister_workers.trainer.method import AuxiliaryModel
from cloister_workers.trainer.session import Session

Inputs = Mapping[DatasetRole, BinaryIO]


@dataclass(frozen=True)
class Workplace:
    """Where a job runs: directories, device and clock (seconds)."""

    model_dir: str
    scratch: str
    device: torch.device
    clock: Callable[[], float] = time.monotonic
    auxiliary_dir: str = ""
    """Of the job's second model; empty: it has none."""


def auxiliary_model(inputs: Inputs, place: Workplace) -> AuxiliaryModel:
    """The second model of the job, its layer unpacked. Raises SpecError where there is none, TrainerError."""
    if not place.auxiliary_dir:
        raise SpecError(
            FailureCode.SPEC_INVALID,
            SpecField.AUXILIARY_MODEL,
            "auxiliary_model is missing; the method needs a second model",
        )
    if DatasetRole.AUXILIARY_LAYER not in inputs:
        return AuxiliaryModel(place.auxiliary_dir, "")
    layer = unpack_layer(inputs[DatasetRole.AUXILIARY_LAYER], place.scratch)
    return AuxiliaryModel(layer.model_dir(place.auxiliary_dir), str(layer.folder) if layer.adapter else "")


@contextmanager
def stage(session: Session, name: Stage) -> Iterator[None]:
    """Tell start and finish; a stage that raises is not finished."""
    session.stage(name, StageStatus.STARTED)
    yield
    session.stage(name, StageStatus.FINISHED)
