# SPDX-License-Identifier: Apache-2.0
"""The messages between agent and trainer: one closed schema for both ways; their words stand in `words.py`.

`protocol.py` frames them. What the trainer says is numbers and the enumerations below and nothing else, so
that no text of a dataset can pass. Both ends build and parse the same frozen dataclasses; an unknown key,
name or value is a `ProtocolError`.

    agent -> trainer   Start, Cancel, Pause
    trainer -> agent   Ready, StageChange, Rows, RowErrors, Progress, OddRows, Evaluation,
                       Figure, Finding, Judged, Report (+1 descriptor),
                       Checkpoint (+1 descriptor), Result (+1 descriptor), Reported (+1 descriptor),
                       Failed, CancelledAt, PausedAt

Not covered: numbers can still carry a little hidden information; the agent's rate and size limits bound it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeVar, cast

from cloister_workers.errors import ProtocolError
from cloister_workers.words import (
    DatasetRole,
    EvaluationPhase,
    ExceptionKind,
    FailureCode,
    FailureNumber,
    FigureKind,
    FigureName,
    GateRule,
    MetricName,
    ModelNeed,
    RefusalReason,
    RowReason,
    SpecField,
    Stage,
    StageStatus,
    Verdict,
)

__all__ = [
    "MAX_LOSSES",
    "MAX_ODD_ROWS",
    "MAX_PROGRESS_PER_SECOND",
    "MAX_ROW_ERRORS",
    "Cancel",
    "CancelledAt",
    "Checkpoint",
    "DatasetRole",
    "Evaluation",
    "EvaluationPhase",
    "ExceptionKind",
    "Failed",
    "FailureCode",
    "FailureNumber",
    "Figure",
    "FigureKind",
    "FigureName",
    "Finding",
    "GateRule",
    "Judged",
    "MetricName",
    "Metrics",
    "ModelNeed",
    "OddRows",
    "Pause",
    "PausedAt",
    "Progress",
    "Ready",
    "RefusalReason",
    "Report",
    "Reported",
    "Result",
    "RowErrors",
    "RowReason",
    "Rows",
    "SpecField",
    "Stage",
    "StageChange",
    "StageStatus",
    "Start",
    "Verdict",
]

MAX_ROW_ERRORS = 100  # row errors listed in one RowErrors message
MAX_ODD_ROWS = 8  # rows listed in one OddRows message
MAX_LOSSES = 1024  # per-step losses in one Progress message
MAX_PROGRESS_PER_SECOND = 10  # the trainer keeps below this; an agent may end one that does not
_MAX_INT = 2**53 - 1  # largest integer that every JSON reader keeps exact


Metrics = Mapping[MetricName, float]

E = TypeVar("E", bound=StrEnum)
K = TypeVar("K", bound=StrEnum)
V = TypeVar("V")


# ---------------------------------------------------------------- checks of one value
def _fail(what: str, value: object) -> ProtocolError:
    return ProtocolError(f"expected {what}, got a {type(value).__name__}; both ends must run one version")


def _count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MAX_INT:
        raise _fail("a whole number from 0 to 2^53-1", value)
    return value


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise _fail("a finite number", value)
    return float(value)


def _one_of(kind: type[E]) -> Callable[[object], E]:
    def check(value: object) -> E:
        try:
            return kind(cast("str", value))
        except ValueError:
            raise _fail(f"one of {kind.__name__}", value) from None

    return check


def _table(kind: type[K], item: Callable[[object], V]) -> Callable[[object], dict[K, V]]:
    def check(value: object) -> dict[K, V]:
        if not isinstance(value, Mapping):
            raise _fail("an object", value)
        return {_one_of(kind)(key): item(entry) for key, entry in value.items()}

    return check


def _row_errors(value: object) -> tuple[tuple[int, RowReason], ...]:
    if not isinstance(value, list | tuple) or len(value) > MAX_ROW_ERRORS:
        raise _fail(f"a list of at most {MAX_ROW_ERRORS} row errors", value)
    for pair in value:
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise _fail("[row number, reason]", pair)
    return tuple((_count(number), _one_of(RowReason)(reason)) for number, reason in value)


def _losses(value: object) -> tuple[float, ...]:
    if not isinstance(value, list | tuple) or len(value) > MAX_LOSSES:
        raise _fail(f"a list of at most {MAX_LOSSES} losses", value)
    return tuple(_number(entry) for entry in value)


def _row_numbers(value: object) -> tuple[int, ...]:
    if not isinstance(value, list | tuple) or len(value) > MAX_ODD_ROWS:
        raise _fail(f"a list of at most {MAX_ODD_ROWS} row numbers", value)
    return tuple(_count(entry) for entry in value)


def _object(value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise _fail("an object", value)
    return value


def _path(value: object) -> str:
    if not isinstance(value, str) or not value.startswith("/"):
        raise _fail("an absolute path", value)
    return value


def _path_or_none(value: object) -> str:
    return "" if value == "" else _path(value)


def _of(check: Callable[[object], object]) -> dict[str, object]:
    return {"check": check}


_COUNT = _of(_count)
_NUMBER = _of(_number)
_METRICS = _of(_table(MetricName, _number))
_ROLE = _of(_one_of(DatasetRole))


# ---------------------------------------------------------------- agent -> trainer
@dataclass(frozen=True, kw_only=True)
class Start:
    """Run one job. `inputs` gives, for each role, the index of its descriptor among those of this frame."""

    spec: dict[str, object] = field(metadata=_of(_object))
    inputs: Mapping[DatasetRole, int] = field(metadata=_of(_table(DatasetRole, _count)))
    model_dir: str = field(metadata=_of(_path))
    scratch: str = field(metadata=_of(_path))
    attempt: int = field(metadata=_COUNT)
    gate: dict[str, object] = field(default_factory=dict, metadata=_of(_object))
    """The de-biasing gate of the signed policy (`cloister.gate.Gate.to_json`); empty for its defaults."""
    auxiliary_dir: str = field(default="", metadata=_of(_path_or_none))
    """Where the base of the job's second model is; empty: it has none."""


@dataclass(frozen=True)
class Cancel:
    """Stop before the next micro batch; answered by CancelledAt."""


@dataclass(frozen=True)
class Pause:
    """Finish the step, send a checkpoint and end; answered by Checkpoint and PausedAt."""


# ---------------------------------------------------------------- trainer -> agent
@dataclass(frozen=True)
class Ready:
    """Everything is imported; the trainer waits for Start."""


@dataclass(frozen=True, kw_only=True)
class StageChange:
    """A stage starts or is finished."""

    name: Stage = field(metadata=_of(_one_of(Stage)))
    status: StageStatus = field(metadata=_of(_one_of(StageStatus)))


@dataclass(frozen=True, kw_only=True)
class Rows:
    """What one dataset holds: rows read, rows used for its purpose, exact repeats, rows cut to
    max_seq_length, tokens and labels (0 where there are none).
    """

    dataset: DatasetRole = field(metadata=_ROLE)
    total: int = field(metadata=_COUNT)
    used: int = field(metadata=_COUNT)
    duplicates: int = field(metadata=_COUNT)
    truncated: int = field(metadata=_COUNT)
    tokens: int = field(metadata=_COUNT)
    labels: int = field(metadata=_COUNT)


@dataclass(frozen=True, kw_only=True)
class RowErrors:
    """Rows refused: the number of all, and the first `MAX_ROW_ERRORS` as (1-based row number, reason)."""

    dataset: DatasetRole = field(metadata=_ROLE)
    total_errors: int = field(metadata=_COUNT)
    errors: tuple[tuple[int, RowReason], ...] = field(metadata=_of(_row_errors))


@dataclass(frozen=True, kw_only=True)
class Progress:
    """After step `step` of `max_steps`. `losses` are those of the last len(losses) steps, `step` the last of
    them: messages are thinned to `MAX_PROGRESS_PER_SECOND`, the curve is not.
    """

    step: int = field(metadata=_COUNT)
    max_steps: int = field(metadata=_COUNT)
    epoch: float = field(metadata=_NUMBER)
    metrics: Metrics = field(metadata=_METRICS)
    losses: tuple[float, ...] = field(metadata=_of(_losses))
    trained_tokens: int = field(metadata=_COUNT)
    eta_seconds: float = field(metadata=_NUMBER)


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Metrics on held-out rows. `layers` of the version's layers were in force, from the first; it is 0 outside of
    evaluation jobs, where there are no parts to tell apart.
    """

    phase: EvaluationPhase = field(metadata=_of(_one_of(EvaluationPhase)))
    step: int = field(metadata=_COUNT)
    metrics: Metrics = field(metadata=_METRICS)
    layers: int = field(default=0, metadata=_COUNT)


@dataclass(frozen=True, kw_only=True)
class OddRows:
    """The loss of step `step` stands out; `rows` of the dataset, worst first, made it so."""

    dataset: DatasetRole = field(metadata=_ROLE)
    step: int = field(metadata=_COUNT)
    rows: tuple[int, ...] = field(metadata=_of(_row_numbers))


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A STATE bundle rides along as one descriptor (a sealed memfd at offset 0)."""

    step: int = field(metadata=_COUNT)
    metrics: Metrics = field(metadata=_METRICS)


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One measure of bias on one axis, or one utility, of run `run` (0 is the version itself). `axis` counts in the
    spec's axes (0 for a utility), `group` from 1 among the groups that the report names (0: all of them).
    """

    run: int = field(metadata=_COUNT)
    kind: FigureKind = field(metadata=_of(_one_of(FigureKind)))
    index: int = field(metadata=_COUNT)
    axis: int = field(metadata=_COUNT)
    group: int = field(metadata=_COUNT)
    items: int = field(metadata=_COUNT)
    clusters: int = field(metadata=_COUNT)
    values: Mapping[FigureName, float] = field(metadata=_of(_table(FigureName, _number)))


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one rule of the gate says of run `run`."""

    run: int = field(metadata=_COUNT)
    rule: GateRule = field(metadata=_of(_one_of(GateRule)))
    verdict: Verdict = field(metadata=_of(_one_of(Verdict)))
    kind: FigureKind = field(metadata=_of(_one_of(FigureKind)))
    index: int = field(metadata=_COUNT)
    axis: int = field(metadata=_COUNT)


@dataclass(frozen=True, kw_only=True)
class Judged:
    """The gate's word on run `run`; comes after its figures and findings."""

    run: int = field(metadata=_COUNT)
    verdict: Verdict = field(metadata=_of(_one_of(Verdict)))


@dataclass(frozen=True)
class Report:
    """The page with names rides along as one descriptor (a sealed memfd at offset 0): a bundle of report.html and
    report.json. It is sealed to the member who asked and to the team; comes once, before the Result.
    """


@dataclass(frozen=True, kw_only=True)
class Result:
    """An EXPORT bundle rides along as one descriptor; the job is done and nothing follows."""

    step: int = field(metadata=_COUNT)
    metrics: Metrics = field(metadata=_METRICS)
    trained_tokens: int = field(metadata=_COUNT)


@dataclass(frozen=True, kw_only=True)
class Reported:
    """The end of a job that makes no model, evaluation or inference: a bundle of what it found rides along as one
    descriptor (report.html and report.json, or predictions.jsonl), which is sealed to the member who asked and to the
    team; nothing follows.
    """

    metrics: Metrics = field(metadata=_METRICS)
    rows: int = field(metadata=_COUNT)


@dataclass(frozen=True, kw_only=True)
class Failed:
    """The job failed and nothing follows. `kind` means something with INTERNAL only, `spec_field` with
    SPEC_INVALID and ADAPTER_INVALID only, `refusal` with MITIGATION_REFUSED only, `model_need` with MODEL_INVALID only.
    """

    code: FailureCode = field(metadata=_of(_one_of(FailureCode)))
    numbers: Mapping[FailureNumber, int] = field(default_factory=dict, metadata=_of(_table(FailureNumber, _count)))
    kind: ExceptionKind = field(default=ExceptionKind.OTHER, metadata=_of(_one_of(ExceptionKind)))
    spec_field: SpecField = field(default=SpecField.SPEC, metadata=_of(_one_of(SpecField)))
    refusal: RefusalReason = field(default=RefusalReason.NONE, metadata=_of(_one_of(RefusalReason)))
    model_need: ModelNeed = field(default=ModelNeed.NONE, metadata=_of(_one_of(ModelNeed)))


@dataclass(frozen=True, kw_only=True)
class CancelledAt:
    """Cancelled after `step` steps; nothing follows."""

    step: int = field(metadata=_COUNT)


@dataclass(frozen=True, kw_only=True)
class PausedAt:
    """Paused after `step` steps, checkpoint sent; nothing follows."""

    step: int = field(metadata=_COUNT)
