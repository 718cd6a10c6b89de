# SPDX-License-Identifier: Apache-2.0
"""What a mitigation answers to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from cloister_workers.errors import TrainerError
from cloister_workers.messages import FailureCode, FailureNumber, RefusalReason
from cloister_workers.trainer.debias.kinds import ModelKind
from cloister_workers.trainer.debias.material import Part
from cloister_workers.trainer.debias.training import Training
from cloister_workers.trainer.spec import Hyperparameters, Lora


class Refused(TrainerError):
    """The mitigation must not be used on this material."""

    def __init__(self, reason: RefusalReason, message: str, numbers: Mapping[FailureNumber, int] | None = None) -> None:
        super().__init__(FailureCode.MITIGATION_REFUSED, message, numbers or {})
        self.reason = reason


class Layer(StrEnum):
    """What the mitigation leaves on top of the model that the job started from."""

    ADAPTER = "adapter"  # a peft adapter that stands alone on the base model
    MERGED = "merged"  # a whole folder in place of the base's
    ERASURE = "erasure"  # a whole folder whose weights hold a folded linear map


@dataclass(frozen=True)
class Case:
    """What a mitigation works on."""

    subject: Any
    """One of `subjects`, freshly loaded: it may be changed."""
    kind: ModelKind
    axes: tuple[str, ...]
    fit: Part
    validation: Part
    """To stop and to choose by; never the test part."""
    settings: Mapping[str, float]
    """The mitigation's own numbers: all names of `defaults`."""
    options: Mapping[str, str]
    hyperparameters: Hyperparameters
    lora: Lora
    seed: int
    model_name: str
    """Written into exports instead of any path."""
    scratch: str
    training: Training
    """Runs the training loop for mitigations that train."""


@dataclass(frozen=True)
class Mitigated:
    """What came of it: the files of the version, from which the model is loaded again before it is measured."""

    layer: Layer
    files: Mapping[str, bytes]
    """By name, at most one folder deep (`1_Pooling/config.json`); as `trainer.export` writes them."""
    trained_tokens: int = 0
    steps: int = 0
    notes: Mapping[str, float] = field(default_factory=dict)
    """What was done, in numbers, for the report: fixed names such as `texts_swapped`."""


class Mitigation(Protocol):
    """A mitigation. One instance serves every job: no state."""

    name: str
    title: str
    kinds: frozenset[ModelKind]
    trained: bool
    """Whether the seed changes its result, so that further seeds are worth a look."""
    defaults: Mapping[str, float]
    choices: Mapping[str, tuple[str, ...]]
    """Options with their values, the default first."""
    source: str

    def refuse(self, case: Case) -> None:
        """Raises Refused where the mitigation would do harm or could do nothing; looks at the material only."""
        ...

    def apply(self, case: Case) -> Mitigated:
        """Mitigate. Raises Refused, Cancelled, Paused, TrainerError."""
        ...
