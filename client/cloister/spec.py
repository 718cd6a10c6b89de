# SPDX-License-Identifier: Apache-2.0
"""Job specifications: the contract's JobSpec as YAML, with every default spelled out before it is signed.

There is no second schema: names and types are those of `JobSpec` in protos/cloister/api/v1/jobs.proto, and a key
that it does not have is refused.  docs/reference/spec.md lists defaults and ranges.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import yaml
from google.protobuf import json_format

from cloister.api.v1 import jobs_pb2
from cloister.debias import CAUSAL, MASKED, WIDE_LORA, WIDE_TARGETS, defaults_of, resolve_debias
from cloister.errors import UsageError

Spec = jobs_pb2.JobSpec
SpecSource = Spec | Mapping[str, object] | str | Path

SEED = 42
MAX_ATTEMPTS = 3
VALIDATION_FRACTION = 0.1
EVALUATION_FRACTION = 0.2
LORA: Mapping[str, float | int] = {"rank": 8, "alpha": 16.0, "dropout": 0.0}

METHOD_DEFAULTS: Mapping[str, Mapping[str, float | int | str]] = {
    "classification": {
        "n_epochs": 4,
        "batch_size": 16,
        "micro_batch_size": 16,
        "learning_rate": 5e-3,
        "lr_scheduler_type": "linear",
        "warmup_ratio": 0.06,
        "weight_decay": 0.01,
        "max_grad_norm": 1.0,
        "max_seq_length": 128,
        "max_steps": 0,
        "n_evals": 4,
        "n_checkpoints": 2,
    },
    "supervised": {
        "n_epochs": 3,
        "batch_size": 8,
        "micro_batch_size": 8,
        "learning_rate": 2e-4,
        "lr_scheduler_type": "cosine",
        "warmup_ratio": 0.03,
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "max_seq_length": 1024,
        "max_steps": 0,
        "n_evals": 4,
        "n_checkpoints": 2,
    },
}

RANGES: Mapping[str, tuple[float, float]] = {
    "n_epochs": (1, 10_000),
    "batch_size": (1, 65_536),
    "micro_batch_size": (1, 65_536),
    "learning_rate": (0.0, 1.0),
    "warmup_ratio": (0.0, 0.99),
    "weight_decay": (0.0, 1.0),
    "max_grad_norm": (0.0, 1e6),
    "max_seq_length": (4, 1_048_576),
    "max_steps": (0, 10_000_000),
    "n_evals": (0, 1000),
    "n_checkpoints": (0, 1000),
    "rank": (1, 1024),
    "alpha": (0.0, 1e6),
    "dropout": (0.0, 0.99),
    "validation_fraction": (0.0, 0.5),
    "evaluation_fraction": (0.0, 0.5),
    "priority": (-100, 100),
    "max_attempts": (1, 10),
}
SCHEDULERS = ("linear", "cosine", "constant")


def read_spec(source: SpecSource) -> Spec:
    """A specification from a path of a YAML file, a mapping, or a JobSpec.  Raises UsageError."""
    if isinstance(source, Spec):
        copy = Spec()
        copy.CopyFrom(source)
        return copy
    if isinstance(source, Mapping):
        return _from_mapping(source, "spec")
    path = Path(source)
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        raise UsageError(f"{path}: it cannot be read; name a YAML file") from None
    return parse_spec(text, path.name)


def parse_spec(text: str, what: str = "spec") -> Spec:
    """A specification from YAML.  Raises UsageError in one line."""
    try:
        values = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UsageError(f"{what}: not YAML{line}: {error.problem}; mend it") from None
    except yaml.YAMLError:
        raise UsageError(f"{what}: not YAML; mend it") from None
    if not isinstance(values, dict):
        raise UsageError(f"{what}: expected keys such as model, training_dataset and method")
    return _from_mapping(values, what)


def _from_mapping(values: Mapping[str, object], what: str) -> Spec:
    try:
        return json_format.ParseDict(dict(values), Spec())
    except (json_format.ParseError, TypeError, ValueError, AttributeError) as error:
        text = " ".join(str(error).split())[:200]
        raise UsageError(f"{what}: {text}; see docs/reference/spec.md") from None


def resolve(spec: Spec, parent: Spec | None = None) -> Spec:
    """A copy with every default spelled out and every range checked; references stay as they are.

    `parent` is the specification of the job whose adapter this one continues: that has its shape already.
    Raises UsageError that names the field.
    """
    resolved = Spec()
    resolved.CopyFrom(spec)
    resolved.pool = resolved.pool or "default"
    resolved.seed = resolved.seed or SEED
    resolved.max_attempts = resolved.max_attempts or MAX_ATTEMPTS
    _resolve_data(resolved)
    _resolve_method(resolved)
    _resolve_adapter(resolved, parent)
    _check(resolved)
    return resolved


def spec_bytes(spec: Spec) -> bytes:
    """The bytes that are signed: JSON with the contract's field names, sorted keys, no white space, UTF-8."""
    values = json_format.MessageToDict(spec, preserving_proto_field_name=True)
    return json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode("utf-8")


def from_bytes(data: bytes) -> Spec:
    """Inverse of `spec_bytes`.  Raises UsageError."""
    try:
        return json_format.Parse(data, Spec())
    except json_format.ParseError:
        raise UsageError("the job's specification is not readable; update cloister") from None


def _resolve_data(spec: Spec) -> None:
    """A share is held out only where no dataset is named for it."""
    if spec.validation_dataset:
        spec.data.validation_fraction = 0.0
    elif not spec.data.HasField("validation_fraction"):
        spec.data.validation_fraction = VALIDATION_FRACTION
    if spec.evaluation_dataset:
        spec.data.evaluation_fraction = 0.0
    elif not spec.data.HasField("evaluation_fraction"):
        spec.data.evaluation_fraction = EVALUATION_FRACTION


def _resolve_method(spec: Spec) -> None:
    kind = spec.method.WhichOneof("type")
    if kind is None:
        raise UsageError(f"spec: method is missing; choose one of {', '.join(METHOD_DEFAULTS)}, debias")
    if kind == "debias":
        resolve_debias(spec.method.debias)
    defaults = defaults_of(spec.method.debias) if kind == "debias" else METHOD_DEFAULTS[kind]
    settings = _hyperparameters(spec)
    explicit_micro = settings.HasField("micro_batch_size")
    for name, value in defaults.items():
        if not settings.HasField(name):  # type: ignore[arg-type]  # names are the message's own, tested
            setattr(settings, name, value)
    if not explicit_micro:
        settings.micro_batch_size = min(settings.micro_batch_size, settings.batch_size)


def _resolve_adapter(spec: Spec, parent: Spec | None) -> None:
    if spec.adapter.WhichOneof("type") == "full":
        if spec.method.WhichOneof("type") == "debias":
            raise UsageError("spec: adapter is full; de-biasing trains adapters: give lora, or leave it out")
        return
    spec.adapter.lora.SetInParent()
    lora, defaults = spec.adapter.lora, LORA
    if parent is not None and parent.adapter.WhichOneof("type") == "lora":
        _continue_adapter(lora, parent.adapter.lora)
    elif spec.method.debias.task in (CAUSAL, MASKED) and not lora.target_modules:
        defaults = WIDE_LORA
        lora.target_modules.extend(WIDE_TARGETS)
    for name, value in defaults.items():
        if not lora.HasField(name):  # type: ignore[arg-type]
            setattr(lora, name, value)


def _continue_adapter(lora: jobs_pb2.Lora, before: jobs_pb2.Lora) -> None:
    """An adapter that is trained on keeps its rank, scale and places; another dropout may be asked for."""
    for name in ("rank", "alpha"):
        old = getattr(before, name)
        if lora.HasField(name) and getattr(lora, name) != old:
            raise UsageError(
                f"spec: {name} is {getattr(lora, name):g}, the model's adapter has {old:g}; leave it out, or name the "
                "base model"
            )
        setattr(lora, name, old)
    if lora.target_modules and sorted(lora.target_modules) != sorted(before.target_modules):
        raise UsageError("spec: target_modules are not those of the model's adapter; leave them out")
    lora.target_modules[:] = before.target_modules
    if not lora.HasField("dropout"):
        lora.dropout = before.dropout


def _hyperparameters(spec: Spec) -> jobs_pb2.Hyperparameters:
    methods: dict[str, jobs_pb2.Classification | jobs_pb2.Supervised | jobs_pb2.Debias] = {
        "classification": spec.method.classification,
        "supervised": spec.method.supervised,
        "debias": spec.method.debias,
    }
    chosen = methods[spec.method.WhichOneof("type") or ""]
    chosen.hyperparameters.SetInParent()
    return chosen.hyperparameters


def _check(spec: Spec) -> None:
    for name in ("model", "training_dataset", "purpose"):
        if not getattr(spec, name):
            raise UsageError(f"spec: {name} is missing; see docs/reference/spec.md")
    settings = _hyperparameters(spec)
    for message in (spec, spec.data, settings, spec.adapter.lora):
        _check_ranges(message)
    if settings.learning_rate == 0:
        raise UsageError("spec: learning_rate is 0; give a number above 0")
    if settings.micro_batch_size > settings.batch_size:
        raise UsageError(f"spec: micro_batch_size is above batch_size {settings.batch_size}; lower it")
    if settings.lr_scheduler_type not in SCHEDULERS:
        raise UsageError(f"spec: lr_scheduler_type is none of {', '.join(SCHEDULERS)}")
    if spec.data.max_rows < 0:
        raise UsageError("spec: max_rows is below 0; 0 means all")
    if len(spec.metadata) > 16 or any(len(k) > 64 or len(v) > 512 for k, v in spec.metadata.items()):
        raise UsageError("spec: metadata has at most 16 pairs, keys of 64 and values of 512 characters")


def _check_ranges(message: jobs_pb2.JobSpec | jobs_pb2.DataOptions | jobs_pb2.Hyperparameters | jobs_pb2.Lora) -> None:
    for field, value in message.ListFields():
        if field.name in RANGES:
            low, high = RANGES[field.name]
            if not low <= value <= high:
                raise UsageError(f"spec: {field.name} is {value}; give {low:.10g} to {high:.10g}")
