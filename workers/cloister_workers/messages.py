# SPDX-License-Identifier: Apache-2.0
"""The words between agent and trainer: enumerations and one closed schema for both ways.

`protocol.py` frames them. What the trainer says is numbers and the enumerations below and nothing else, so
that no text of a dataset can pass. Both ends build and parse the same frozen dataclasses; an unknown key,
name or value is a `ProtocolError`.

    agent -> trainer   Start, Cancel, Pause
    trainer -> agent   Ready, StageChange, Rows, RowErrors, Progress, Evaluation,
                       Checkpoint (+1 descriptor), Result (+1 descriptor), Failed, CancelledAt, PausedAt

Not covered: numbers can still carry a little hidden information; the agent's rate and size limits bound it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeVar, cast

from cloister_workers.errors import ProtocolError

MAX_ROW_ERRORS = 100  # row errors listed in one RowErrors message
MAX_LOSSES = 1024  # per-step losses in one Progress message
MAX_PROGRESS_PER_SECOND = 10  # the trainer keeps below this; an agent may end one that does not
_MAX_INT = 2**53 - 1  # largest integer that every JSON reader keeps exact


class DatasetRole(StrEnum):
    """Which input a message speaks of; also the key of a descriptor in `Start.inputs`."""

    TRAINING = "training"
    VALIDATION = "validation"
    EVALUATION = "evaluation"
    CHECKPOINT = "checkpoint"  # in Start.inputs only


class Stage(StrEnum):
    """The parts of a job, in this order; `evaluate` comes twice, before and after `train`."""

    VALIDATE = "validate"
    TRAIN = "train"
    EVALUATE = "evaluate"
    EXPORT = "export"


class StageStatus(StrEnum):
    """Where a stage stands."""

    STARTED = "started"
    FINISHED = "finished"


class EvaluationPhase(StrEnum):
    """When an evaluation ran: before and after on the evaluation part, during on the validation part."""

    BEFORE = "before"
    DURING = "during"
    AFTER = "after"


class RowReason(StrEnum):
    """Why a row is refused."""

    BAD_UTF8 = "BAD_UTF8"
    TOO_LARGE = "TOO_LARGE"  # the line is longer than rows.MAX_LINE bytes
    NOT_JSON = "NOT_JSON"
    NOT_AN_OBJECT = "NOT_AN_OBJECT"
    MISSING_KEY = "MISSING_KEY"
    WRONG_TYPE = "WRONG_TYPE"
    EMPTY_TEXT = "EMPTY_TEXT"
    INVALID_TEXT = "INVALID_TEXT"  # unpaired surrogates: no UTF-8 form
    UNKNOWN_LABEL = "UNKNOWN_LABEL"  # validation or evaluation label that training never has
    UNKNOWN_ROLE = "UNKNOWN_ROLE"
    NO_COMPLETION = "NO_COMPLETION"  # nothing to learn from: no assistant text
    TEMPLATE_REFUSED = "TEMPLATE_REFUSED"  # the tokenizer's chat template does not take this row
    TOO_LONG = "TOO_LONG"  # more than max_seq_length tokens
    DUPLICATE = "DUPLICATE"  # only under data.reject_duplicates


class MetricName(StrEnum):
    """Every metric a trainer may report."""

    LOSS = "loss"
    LEARNING_RATE = "learning_rate"
    GRAD_NORM = "grad_norm"
    TOKENS_PER_SECOND = "tokens_per_second"
    EVAL_LOSS = "eval_loss"
    EVAL_ROWS = "eval_rows"
    EVAL_ACCURACY = "eval_accuracy"
    EVAL_ACCURACY_CI_LOW = "eval_accuracy_ci_low"
    EVAL_ACCURACY_CI_HIGH = "eval_accuracy_ci_high"
    EVAL_MACRO_F1 = "eval_macro_f1"
    EVAL_PERPLEXITY = "eval_perplexity"
    EVAL_TOKEN_ACCURACY = "eval_token_accuracy"  # noqa: S105 - the name of a metric


class FailureCode(StrEnum):
    """Why a job failed."""

    SPEC_INVALID = "SPEC_INVALID"
    INPUT_UNREADABLE = "INPUT_UNREADABLE"
    ROWS_INVALID = "ROWS_INVALID"
    TOO_FEW_ROWS = "TOO_FEW_ROWS"
    TOO_FEW_LABELS = "TOO_FEW_LABELS"
    MODEL_INVALID = "MODEL_INVALID"  # the directory does not load as the model that the method needs
    MODEL_UNSUPPORTED = "MODEL_UNSUPPORTED"  # it loads, but packing would change its results
    ADAPTER_INVALID = "ADAPTER_INVALID"  # e.g. no module has a target's name
    CHECKPOINT_INVALID = "CHECKPOINT_INVALID"
    NON_FINITE_LOSS = "NON_FINITE_LOSS"
    OUT_OF_MEMORY = "OUT_OF_MEMORY"
    SCRATCH_FULL = "SCRATCH_FULL"
    PROTOCOL = "PROTOCOL"
    INTERNAL = "INTERNAL"


class FailureNumber(StrEnum):
    """Names of the numbers that explain a failure."""

    STEP = "step"
    ROWS = "rows"
    LABELS = "labels"
    TOTAL_ERRORS = "total_errors"


class ExceptionKind(StrEnum):
    """What an INTERNAL failure was; the nearest of these classes."""

    IMPORT_ERROR = "IMPORT_ERROR"
    OS_ERROR = "OS_ERROR"
    VALUE_ERROR = "VALUE_ERROR"
    TYPE_ERROR = "TYPE_ERROR"
    LOOKUP_ERROR = "LOOKUP_ERROR"
    ATTRIBUTE_ERROR = "ATTRIBUTE_ERROR"
    RUNTIME_ERROR = "RUNTIME_ERROR"
    OTHER = "OTHER"


class SpecField(StrEnum):
    """The field of the job spec that a SPEC_INVALID or ADAPTER_INVALID failure is about."""

    SPEC = "spec"  # the spec as a whole: an unknown or missing key, a wrong type
    SEED = "seed"
    DATA = "data"
    METHOD = "method"
    ADAPTER = "adapter"
    N_EPOCHS = "n_epochs"
    BATCH_SIZE = "batch_size"
    MICRO_BATCH_SIZE = "micro_batch_size"
    LEARNING_RATE = "learning_rate"
    LR_SCHEDULER_TYPE = "lr_scheduler_type"
    WARMUP_RATIO = "warmup_ratio"
    WEIGHT_DECAY = "weight_decay"
    MAX_GRAD_NORM = "max_grad_norm"
    MAX_SEQ_LENGTH = "max_seq_length"
    MAX_STEPS = "max_steps"
    N_EVALS = "n_evals"
    N_CHECKPOINTS = "n_checkpoints"
    RANK = "rank"
    ALPHA = "alpha"
    DROPOUT = "dropout"
    TARGET_MODULES = "target_modules"


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


def _object(value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise _fail("an object", value)
    return value


def _path(value: object) -> str:
    if not isinstance(value, str) or not value.startswith("/"):
        raise _fail("an absolute path", value)
    return value


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
    """Metrics on held-out rows."""

    phase: EvaluationPhase = field(metadata=_of(_one_of(EvaluationPhase)))
    step: int = field(metadata=_COUNT)
    metrics: Metrics = field(metadata=_METRICS)


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A STATE bundle rides along as one descriptor (a sealed memfd at offset 0)."""

    step: int = field(metadata=_COUNT)
    metrics: Metrics = field(metadata=_METRICS)


@dataclass(frozen=True, kw_only=True)
class Result:
    """An EXPORT bundle rides along as one descriptor; the job is done and nothing follows."""

    step: int = field(metadata=_COUNT)
    metrics: Metrics = field(metadata=_METRICS)
    trained_tokens: int = field(metadata=_COUNT)


@dataclass(frozen=True, kw_only=True)
class Failed:
    """The job failed and nothing follows. `kind` means something with INTERNAL only, `spec_field` with
    SPEC_INVALID and ADAPTER_INVALID only.
    """

    code: FailureCode = field(metadata=_of(_one_of(FailureCode)))
    numbers: Mapping[FailureNumber, int] = field(default_factory=dict, metadata=_of(_table(FailureNumber, _count)))
    kind: ExceptionKind = field(default=ExceptionKind.OTHER, metadata=_of(_one_of(ExceptionKind)))
    spec_field: SpecField = field(default=SpecField.SPEC, metadata=_of(_one_of(SpecField)))


@dataclass(frozen=True, kw_only=True)
class CancelledAt:
    """Cancelled after `step` steps; nothing follows."""

    step: int = field(metadata=_COUNT)


@dataclass(frozen=True, kw_only=True)
class PausedAt:
    """Paused after `step` steps, checkpoint sent; nothing follows."""

    step: int = field(metadata=_COUNT)
