# SPDX-License-Identifier: Apache-2.0
"""Job specifications: the contract's JobSpec as YAML, with every default spelled out before it is signed.

There is no second schema: names and types are those of `JobSpec` in protos/cloister/api/v1/spec.proto, and a key
that it does not have is refused.  docs/reference/spec.md lists defaults and ranges.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import yaml
from google.protobuf import json_format
from google.protobuf.message import Message

from cloister.api.v1 import spec_pb2
from cloister.debias import CAUSAL, MASKED, WIDE_LORA, WIDE_TARGETS, defaults_of, resolve_debias
from cloister.errors import UsageError
from cloister.reach import check_reach
from cloister.settings import HYPERPARAMETERS, check, defaults, fill, training_defaults
from cloister.spec_rules import check_rules

Spec = spec_pb2.JobSpec
SpecSource = Spec | Mapping[str, object] | str | Path

SEED = 42
MAX_ATTEMPTS = 3
VALIDATION_FRACTION = 0.1
EVALUATION_FRACTION = 0.2
REPLAY_RATIO = 0.2
FULL_RATE = 0.1
"""Training every weight takes this share of an adapter's learning rate."""
NO_TRAINING = ("evaluation", "inference")
"""Methods that learn nothing: their rows are those of evaluation_dataset."""
AUTO = "auto"


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
    except (yaml.YAMLError, ValueError, RecursionError):  # ValueError: a date or number that is none
        raise UsageError(f"{what}: not YAML; mend it") from None
    if not isinstance(values, dict):
        raise UsageError(f"{what}: expected keys such as model, training_dataset and method")
    return _from_mapping(values, what)


def _from_mapping(values: Mapping[str, object], what: str) -> Spec:
    try:
        return json_format.ParseDict(_without_auto(values), Spec())
    except (json_format.ParseError, TypeError, ValueError, AttributeError, RecursionError) as error:
        text = " ".join(str(error).split())[:200]
        raise UsageError(f"{what}: {text}; see docs/reference/spec.md") from None


def _without_auto(values: Mapping[str, object]) -> dict[str, object]:
    """`auto` for a hyper-parameter or a number of the adapter is the same as leaving it out, so that the signed form
    spells out what it came to; for micro_batch_size it is 0: as many as the host's memory takes.
    """
    return {key: _tidy(value) if key in ("method", "adapter") else value for key, value in values.items()}


def _tidy(table: object, name: str = "") -> object:
    if not isinstance(table, Mapping):
        return table
    found = {key: _tidy(value, key) for key, value in table.items()}
    if name not in (HYPERPARAMETERS, "lora"):
        return found
    if found.get("micro_batch_size") == AUTO:
        found["micro_batch_size"] = 0
    return {key: value for key, value in found.items() if value != AUTO}


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
    _resolve_method(resolved)
    _resolve_data(resolved)
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
    except (json_format.ParseError, UnicodeDecodeError, RecursionError):
        raise UsageError("the job's specification is not readable; update cloister") from None


def method_of(spec: Spec) -> tuple[str, Message]:
    """Name and settings of the method.  Raises UsageError where none is given."""
    kind = spec.method.WhichOneof("type")
    if kind is None:
        names = ", ".join(field.name for field in spec_pb2.Method.DESCRIPTOR.fields)
        raise UsageError(f"spec: method is missing; choose one of {names}")
    chosen: Message = getattr(spec.method, kind)
    return kind, chosen


def hyperparameters_of(spec: Spec) -> spec_pb2.Hyperparameters | None:
    """Those of the method; None where it trains nothing."""
    _, chosen = method_of(spec)
    found: spec_pb2.Hyperparameters | None = getattr(chosen, HYPERPARAMETERS, None)
    return found


def _resolve_data(spec: Spec) -> None:
    """A share is held out only where no dataset is named for it."""
    kind, _ = method_of(spec)
    held_out = kind not in NO_TRAINING
    if spec.validation_dataset or not held_out:
        spec.data.validation_fraction = 0.0
    elif not spec.data.HasField("validation_fraction"):
        spec.data.validation_fraction = VALIDATION_FRACTION
    if (spec.evaluation_dataset and not spec.replay_dataset) or not held_out:
        spec.data.evaluation_fraction = 0.0
    elif not spec.data.HasField("evaluation_fraction"):
        spec.data.evaluation_fraction = EVALUATION_FRACTION
    if spec.replay_dataset:
        if not spec.data.HasField("replay_ratio"):
            spec.data.replay_ratio = REPLAY_RATIO
    elif spec.data.HasField("replay_ratio"):
        raise UsageError("spec: replay_ratio is given, but no replay_dataset; name one, or leave it out")


def _resolve_method(spec: Spec) -> None:
    kind, chosen = method_of(spec)
    chosen.SetInParent()
    settings = hyperparameters_of(spec)
    if kind == "debias":
        resolve_debias(spec.method.debias)
        check_reach(spec.method.debias)
    else:
        fill(chosen)
    if settings is None:
        return
    settings.SetInParent()
    stated = training_defaults(chosen.DESCRIPTOR)
    if kind == "debias":
        stated |= defaults_of(spec.method.debias)
    if spec.adapter.WhichOneof("type") == "full":
        stated["learning_rate"] = float(f"{FULL_RATE * float(stated['learning_rate']):.6g}")
    explicit_micro = settings.HasField("micro_batch_size")
    fill(settings, stated)
    if not explicit_micro:
        settings.micro_batch_size = min(settings.micro_batch_size, settings.batch_size)


def _resolve_adapter(spec: Spec, parent: Spec | None) -> None:
    kind, _ = method_of(spec)
    if hyperparameters_of(spec) is None:
        if spec.adapter.WhichOneof("type") is not None:
            raise UsageError(f"spec: adapter is given, but {kind} trains nothing; leave it out")
        return
    if spec.adapter.WhichOneof("type") in ("full", "head"):
        if kind == "debias":
            asked = spec.adapter.WhichOneof("type")
            raise UsageError(f"spec: adapter is {asked}; de-biasing trains adapters: give lora, or leave it out")
        return
    spec.adapter.lora.SetInParent()
    lora = spec.adapter.lora
    stated = defaults(lora.DESCRIPTOR)
    if parent is not None and parent.adapter.WhichOneof("type") == "lora":
        _continue_adapter(lora, parent.adapter.lora)
    elif spec.method.debias.task in (CAUSAL, MASKED) and not lora.target_modules:
        stated |= WIDE_LORA
        lora.target_modules.extend(WIDE_TARGETS)
    fill(lora, stated)


def _continue_adapter(lora: spec_pb2.Lora, before: spec_pb2.Lora) -> None:
    """An adapter that is trained on keeps its rank, scale, kind and places; another dropout may be asked for."""
    for name in ("rank", "alpha", "rslora", "dora"):
        given, old = getattr(lora, name), getattr(before, name)
        if lora.HasField(name) and given != old:
            raise UsageError(
                f"spec: {name} is {_as_yaml(given)}, the model's adapter has {_as_yaml(old)}; leave it out, or name "
                "the base model"
            )
        setattr(lora, name, old)
    if lora.target_modules and sorted(lora.target_modules) != sorted(before.target_modules):
        raise UsageError("spec: target_modules are not those of the model's adapter; leave them out")
    lora.target_modules[:] = before.target_modules
    if not lora.HasField("dropout"):
        lora.dropout = before.dropout


def _as_yaml(value: float) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:g}"


def _check(spec: Spec) -> None:
    kind, chosen = method_of(spec)
    rows = "evaluation_dataset" if kind in NO_TRAINING else "training_dataset"
    for name in ("model", rows, "purpose"):
        if not getattr(spec, name):
            raise UsageError(f"spec: {name} is missing; see docs/reference/spec.md")
    settings = hyperparameters_of(spec)
    for message in (spec, spec.data, chosen, settings, spec.adapter.lora):
        if message is not None:
            check(message)
    if spec.data.max_rows < 0:
        raise UsageError("spec: max_rows is below 0; 0 means all")
    if len(spec.metadata) > 16 or any(len(k) > 64 or len(v) > 512 for k, v in spec.metadata.items()):
        raise UsageError("spec: metadata has at most 16 pairs, keys of 64 and values of 512 characters")
    check_rules(spec)
