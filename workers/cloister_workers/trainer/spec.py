# SPDX-License-Identifier: Apache-2.0
"""The job spec as frozen dataclasses, read from the JSON form of the contract's JobSpec.

Unknown keys are refused; a key that is absent takes the default below (the JSON form leaves zero values out).
Fields that the trainer does not need (names of datasets, purpose, pool...) are known and skipped.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeVar

from cloister_workers.errors import SpecError
from cloister_workers.messages import FailureCode, SpecField

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

S = TypeVar("S", bound="DataclassInstance")

_SKIPPED = frozenset(
    {
        "training_dataset",
        "validation_dataset",
        "evaluation_dataset",
        "replay_dataset",
        "auxiliary_model",
        "purpose",
        "pool",
        "suffix",
        "metadata",
        "priority",
        "max_attempts",
    }
)
TRUNCATE, REFUSE = "truncate", "refuse"
_MAX_STEPS = 10_000_000
_DEFAULT_SEED = 42  # what the contract's 0 stands for


class Method(StrEnum):
    """What is done with the rows; de-biasing has a specification of its own (`debias/spec.py`)."""

    CLASSIFICATION = "classification"
    SUPERVISED = "supervised"
    LANGUAGE_MODELING = "language_modeling"
    TOKEN_CLASSIFICATION = "token_classification"  # noqa: S105 - the name of a method
    QUESTION_ANSWERING = "question_answering"
    PREFERENCE = "preference"
    REWARD = "reward"
    REINFORCEMENT = "reinforcement"
    DISTILLATION = "distillation"
    EMBEDDING = "embedding"
    RETRIEVAL = "retrieval"
    IN_CONTEXT = "in_context"
    EVALUATION = "evaluation"
    INFERENCE = "inference"


class Scheduler(StrEnum):
    """How the learning rate falls after the warm-up."""

    LINEAR = "linear"
    COSINE = "cosine"
    CONSTANT = "constant"


def check(
    good: bool,  # noqa: FBT001 - the condition reads first
    name: SpecField,
    wanted: str,
    value: object,
) -> None:
    """Raise SpecError unless `good`: what the field is, and what to give."""
    if not good:
        raise SpecError(FailureCode.SPEC_INVALID, name, f"{name} is {value!r}; give {wanted}")


@dataclass(frozen=True, kw_only=True)
class Hyperparameters:
    """How to train. Defaults suit LoRA on a small encoder; `DEFAULTS` holds those of each method."""

    n_epochs: int = 3
    """Passes over the training part."""
    batch_size: int = 16
    """Examples per optimiser step."""
    micro_batch_size: int = 0
    """Examples per forward pass, at most a batch; packing methods take what fits into the tokens of that many
    longest ones. 0: as many as memory takes (`fitting.py`)."""
    learning_rate: float = 5e-3
    """Peak learning rate of AdamW."""
    lr_scheduler_type: Scheduler = Scheduler.LINEAR
    warmup_ratio: float = 0.1
    """Share of the steps in which the rate rises from 0."""
    weight_decay: float = 0.0
    """AdamW's decoupled decay, on every trained tensor."""
    max_grad_norm: float = 1.0
    """Gradient norm is clipped to this; 0: never."""
    max_seq_length: int = 128
    """Tokens. Classification cuts longer texts, supervised refuses longer rows."""
    max_steps: int = 0
    """Optimiser steps, whatever the epochs; 0: by n_epochs."""
    n_evals: int = 0
    """Evaluations on the validation part, spread evenly inside training."""
    n_checkpoints: int = 0
    """Checkpoints, spread evenly inside training."""
    early_stop_patience: int = 0
    """Stop after so many evaluations in a row without a lower validation loss; 0: never."""
    keep_best: bool = False
    """End with the weights of the evaluation with the lowest validation loss."""

    def __post_init__(self) -> None:
        name, at_least_1 = SpecField, "a whole number from 1"
        check(1 <= self.n_epochs <= 10_000, name.N_EPOCHS, at_least_1, self.n_epochs)
        check(1 <= self.batch_size <= 65_536, name.BATCH_SIZE, at_least_1, self.batch_size)
        micro = self.micro_batch_size
        check(0 <= micro <= 65_536, name.MICRO_BATCH_SIZE, "0 to 65536", micro)
        rate = self.learning_rate
        check(math.isfinite(rate) and 0 < rate <= 1, name.LEARNING_RATE, "a number above 0, at most 1", rate)
        check(0 <= self.warmup_ratio < 1, name.WARMUP_RATIO, "a number from 0 to below 1", self.warmup_ratio)
        check(0 <= self.weight_decay <= 1, name.WEIGHT_DECAY, "a number from 0 to 1", self.weight_decay)
        norm = self.max_grad_norm
        check(math.isfinite(norm) and norm >= 0, name.MAX_GRAD_NORM, "a number from 0", norm)
        check(4 <= self.max_seq_length <= 1_048_576, name.MAX_SEQ_LENGTH, "4 to 1048576", self.max_seq_length)
        check(0 <= self.max_steps <= _MAX_STEPS, name.MAX_STEPS, f"0 to {_MAX_STEPS}", self.max_steps)
        check(0 <= self.n_evals <= 1000, name.N_EVALS, "0 to 1000", self.n_evals)
        check(0 <= self.n_checkpoints <= 1000, name.N_CHECKPOINTS, "0 to 1000", self.n_checkpoints)
        patience = self.early_stop_patience
        check(0 <= patience <= 1000, name.EARLY_STOP_PATIENCE, "0 to 1000", patience)


DEFAULTS: Mapping[Method, Hyperparameters] = {
    Method.CLASSIFICATION: Hyperparameters(),
    Method.SUPERVISED: Hyperparameters(learning_rate=2e-4, max_seq_length=2048, micro_batch_size=1),
}


@dataclass(frozen=True, kw_only=True)
class ReplaySplit:
    """How the job that trained on the replay rows split them; its rows, as it read them."""

    seed: int = _DEFAULT_SEED
    validation_fraction: float = 0.0
    evaluation_fraction: float = 0.0
    max_rows: int = 0
    """That it used the first so many; 0: all."""

    def __post_init__(self) -> None:
        check(0 < self.seed < 2**64, SpecField.REPLAY_SPLIT, "a replay_split with a seed from 1 to 2^64-1", self.seed)
        shares = (self.validation_fraction, self.evaluation_fraction)
        good = all(0 <= share <= 1 for share in shares) and sum(shares) <= 1
        check(good, SpecField.REPLAY_SPLIT, "a replay_split with fractions from 0 that add up to 1 or less", shares)
        check(self.max_rows >= 0, SpecField.REPLAY_SPLIT, "a replay_split with max_rows from 0", self.max_rows)


@dataclass(frozen=True, kw_only=True)
class Data:
    """Which rows are used for what."""

    validation_fraction: float = 0.1
    """Share of the training rows held out for evaluations during training; unused where a validation set is
    given."""
    evaluation_fraction: float = 0.1
    """Share held out for the evaluations before and after; unused where an evaluation set is given."""
    reject_duplicates: bool = False
    """Refuse a row that an earlier row repeats exactly, across all datasets of the job."""
    max_rows: int = 0
    """Use the first so many rows of each dataset; 0: all. Rows after them are neither used nor checked."""
    replay_ratio: float = 0.0
    """Share of the training examples that are drawn from the replay rows."""
    too_long: str = ""
    """What becomes of a row of more than max_seq_length tokens: truncate, refuse, or as the method does."""
    replay_split: ReplaySplit | None = None
    """None: no earlier job is known to have trained on the replay rows, and they are split as this job's own."""

    def __post_init__(self) -> None:
        name, fraction = SpecField, "a number from 0 to below 1"
        validation, evaluation = self.validation_fraction, self.evaluation_fraction
        check(0 <= validation < 1, name.VALIDATION_FRACTION, fraction, validation)
        check(0 <= evaluation < 1, name.EVALUATION_FRACTION, fraction, evaluation)
        less = f"less than 1 together with validation_fraction, {validation}"
        check(validation + evaluation < 1, name.EVALUATION_FRACTION, less, evaluation)
        check(self.max_rows >= 0, name.MAX_ROWS, "a whole number from 0", self.max_rows)
        check(0 <= self.replay_ratio < 1, name.REPLAY_RATIO, fraction, self.replay_ratio)
        known = self.too_long in ("", TRUNCATE, REFUSE)
        check(known, name.TOO_LONG, f"{TRUNCATE} or {REFUSE}", self.too_long)


@dataclass(frozen=True, kw_only=True)
class Lora:
    """Low-rank adapters on the named linear layers; a classification head is trained whole."""

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    target_modules: tuple[str, ...] = ()
    """Last names of modules, e.g. query; empty: peft's choice for the architecture."""
    rslora: bool = False
    """Scale by alpha / sqrt(rank) (Kalajdzievski 2023, arXiv:2312.03732)."""
    dora: bool = False
    """Magnitude and direction apart (Liu et al. 2024, arXiv:2402.09353)."""
    quantization: str = "none"
    """nf4: the frozen base in 4 bits (Dettmers et al. 2023, arXiv:2305.14314)."""
    merge: bool = False
    """The result is whole weights with the adapter in them."""

    def __post_init__(self) -> None:
        check(1 <= self.rank <= 1024, SpecField.RANK, "1 to 1024", self.rank)
        check(math.isfinite(self.alpha) and self.alpha > 0, SpecField.ALPHA, "a number above 0", self.alpha)
        check(0 <= self.dropout < 1, SpecField.DROPOUT, "a number from 0 to below 1", self.dropout)
        check(all(self.target_modules), SpecField.TARGET_MODULES, "names of modules", len(self.target_modules))
        known = self.quantization in ("none", "nf4")
        check(known, SpecField.QUANTIZATION, "none or nf4", self.quantization)
        both = self.merge and self.quantization != "none"
        check(not both, SpecField.QUANTIZATION, "none where merge is asked for: 4 bits would be merged", "nf4")


@dataclass(frozen=True)
class Full:
    """Every weight is trained."""


@dataclass(frozen=True)
class Head:
    """The task's own head alone is trained."""


Adapter = Lora | Full | Head


@dataclass(frozen=True, kw_only=True)
class TrainingSpec:
    """What the trainer needs of a job spec."""

    model: str
    """The model's given name: written into the export instead of any path."""
    method: Method
    seed: int = _DEFAULT_SEED
    data: Data = field(default_factory=Data)
    adapter: Adapter = field(default_factory=Lora)
    hyperparameters: Hyperparameters = field(default_factory=Hyperparameters)
    settings: Mapping[str, object] = field(default_factory=dict)
    """The method's own, as the specification says them; `read_settings` gives them their types."""

    def __post_init__(self) -> None:
        check(0 < self.seed < 2**64, SpecField.SEED, "1 to 2^64-1", self.seed)


@dataclass(frozen=True)
class Common:
    """What a spec says whatever its method."""

    model: str
    seed: int
    data: Data
    adapter: Adapter


def parse_spec(spec: Mapping[str, object]) -> TrainingSpec:
    """Read the JSON form of a JobSpec. Raises SpecError naming the field that does not fit."""
    common = parse_common(spec)
    method, hyperparameters, settings = _method(spec.get("method"))
    return TrainingSpec(method=method, hyperparameters=hyperparameters, settings=settings, **vars(common))


def parse_common(spec: Mapping[str, object]) -> Common:
    """Everything but the method. Raises SpecError."""
    known = {entry.name for entry in fields(TrainingSpec)} - {"hyperparameters", "settings"} | _SKIPPED
    check_keys(spec, known, SpecField.SPEC)
    model = spec.get("model", "")
    check(isinstance(model, str), SpecField.SPEC, "a model name that is a string", type(model).__name__)
    return Common(
        model=str(model),
        seed=whole(spec.get("seed", 0), SpecField.SEED) or _DEFAULT_SEED,
        data=_data(table_of(spec.get("data", {}), SpecField.DATA)),
        adapter=_adapter(spec.get("adapter", {"lora": {}})),
    )


def _data(table: Mapping[str, object]) -> Data:
    given = dict(table)
    earlier = given.pop("replay_split", None)
    found = replace(Data(), **_typed(given, Data(), SpecField.DATA))
    if earlier is None:
        return found
    split = _typed(table_of(earlier, SpecField.REPLAY_SPLIT), ReplaySplit(), SpecField.REPLAY_SPLIT)
    return replace(found, replay_split=replace(ReplaySplit(), **split))


def check_keys(table: Mapping[str, object], known: set[str] | frozenset[str], name: SpecField) -> None:
    """Raise SpecError for a key outside of `known`."""
    extra = sorted(set(table) - known)
    check(not extra, name, f"only keys of {sorted(known)}", extra)


def table_of(value: object, name: SpecField) -> Mapping[str, object]:
    """`value` where it is an object. Raises SpecError."""
    if not isinstance(value, Mapping):
        raise SpecError(FailureCode.SPEC_INVALID, name, f"{name} is a {type(value).__name__}; give an object")
    return value


def one_key(value: object, name: SpecField, known: set[str]) -> tuple[str, Mapping[str, object]]:
    """The one key of an object and what it holds. Raises SpecError."""
    table = table_of(value, name)
    check_keys(table, known, name)
    check(len(table) == 1, name, f"exactly one of {sorted(known)}", sorted(table))
    key = next(iter(table))
    return key, table_of(table[key], name)


def _method(value: object) -> tuple[Method, Hyperparameters, Mapping[str, object]]:
    key, body = one_key(value, SpecField.METHOD, {entry.value for entry in Method})
    settings = {name: setting for name, setting in body.items() if name != "hyperparameters"}
    defaults = DEFAULTS.get(Method(key), DEFAULTS[Method.SUPERVISED])
    return Method(key), parse_hyperparameters(body.get("hyperparameters", {}), defaults), settings


def read_settings(kind: type[S], given: Mapping[str, object]) -> S:
    """A method's own settings: a frozen dataclass whose fields have defaults. Raises SpecError."""
    return kind(**_typed(given, kind(), SpecField.METHOD))


def parse_hyperparameters(value: object, defaults: Hyperparameters) -> Hyperparameters:
    """`defaults` with the given ones in their place. Raises SpecError."""
    given = dict(table_of(value, SpecField.METHOD))
    scheduler = given.pop("lr_scheduler_type", defaults.lr_scheduler_type)
    check(scheduler in set(Scheduler), SpecField.LR_SCHEDULER_TYPE, f"one of {[*Scheduler]}", scheduler)
    values = _typed(given, defaults, SpecField.METHOD)
    return replace(defaults, lr_scheduler_type=Scheduler(str(scheduler)), **values)


def _adapter(value: object) -> Adapter:
    key, body = one_key(value, SpecField.ADAPTER, {"lora", "full", "head"})
    if key != "lora":
        check_keys(body, set(), SpecField.ADAPTER)
        return Full() if key == "full" else Head()
    given = dict(body)
    targets = given.pop("target_modules", [])
    if not isinstance(targets, list | tuple) or not all(isinstance(name, str) for name in targets):
        raise SpecError(FailureCode.SPEC_INVALID, SpecField.TARGET_MODULES, "target_modules: give a list of names")
    return replace(Lora(), target_modules=tuple(targets), **_typed(given, Lora(), SpecField.ADAPTER))


def _typed(given: Mapping[str, object], defaults: DataclassInstance, name: SpecField) -> dict[str, Any]:
    """The given values in the types of the defaults; keys outside of the dataclass are refused."""
    kinds = {entry.name: type(getattr(defaults, entry.name)) for entry in fields(defaults)}
    kinds = {key: kind for key, kind in kinds.items() if kind in (bool, int, float, str)}
    check_keys(given, set(kinds), name)
    named = {key: SpecField(key) if key in set(SpecField) else name for key in given}
    return {key: _value(value, kinds[key], named[key]) for key, value in given.items()}


def _value(value: object, kind: type, name: SpecField) -> bool | int | float | str:
    if kind is str:
        check(isinstance(value, str), name, "a word", type(value).__name__)
        return str(value)
    if kind is bool:
        check(isinstance(value, bool), name, "true or false", value)
        return bool(value)
    if kind is int:
        return whole(value, name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise SpecError(FailureCode.SPEC_INVALID, name, f"{name} is {value!r}; give a number")
    return float(value)


def whole(value: object, name: SpecField) -> int:
    """A whole number; 64-bit ones come as strings in the contract's JSON form."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 20:
        return int(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise SpecError(FailureCode.SPEC_INVALID, name, f"{name} is {value!r}; give a whole number")
    return value
