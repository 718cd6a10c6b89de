# SPDX-License-Identifier: Apache-2.0
"""The common case of a job without a file: a base model, a dataset and the name of a method."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from cloister.api.v1 import spec_pb2
from cloister.errors import UsageError
from cloister.spec import NO_TRAINING, Spec, read_spec

_FIELDS: Mapping[str, Any] = spec_pb2.Method.DESCRIPTOR.fields_by_name
METHODS = tuple(_FIELDS)
ALIASES: Mapping[str, tuple[str, Mapping[str, object]]] = {
    "sft": ("supervised", {}),
    "classify": ("classification", {}),
    "ner": ("token_classification", {}),
    "qa": ("question_answering", {}),
    "cpt": ("language_modeling", {}),
    "pretrain": ("language_modeling", {"initialisation": "random", "tokenizer": "trained"}),
    **{name: ("preference", {"loss": name}) for name in ("dpo", "ipo", "orpo", "simpo", "kto")},
    "grpo": ("reinforcement", {"algorithm": "grpo"}),
    "rloo": ("reinforcement", {"algorithm": "rloo"}),
    "distill": ("distillation", {}),
    "embed": ("embedding", {}),
    "rag": ("retrieval", {}),
    "icl": ("in_context", {}),
}
"""Names by which methods are known elsewhere: the contract's method, and the settings that the name says."""
IMPLIED_ADAPTER: Mapping[str, str] = {"pretrain": "full"}
"""What a name says of the adapter, where none is asked for: random weights are no base to put one on."""


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What `cloister tune` is told."""

    base: str
    data: str
    method: str
    purpose: str
    evaluation: str = ""
    replay: str = ""
    auxiliary: str = ""
    name: str = ""
    adapter: str = ""
    """lora, full or head; empty: what the method's name implies, else lora, or nothing where nothing is trained."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """Values as they would stand in YAML, by the name of a hyper-parameter, of a setting of the method, or of the
    adapter (`lora.rank`)."""


def spec_of(wish: Wish) -> Spec:
    """The specification that this asks for; references are names still.  Raises UsageError."""
    kind, settings = _method(wish.method)
    body: dict[str, object] = dict(settings)
    lora: dict[str, object] = {}
    rows = "evaluation_dataset" if kind in NO_TRAINING else "training_dataset"
    wanted: dict[str, object] = {
        "model": wish.base,
        rows: wish.data,
        "purpose": wish.purpose,
        "suffix": wish.name,
        "replay_dataset": wish.replay,
        "auxiliary_model": wish.auxiliary,
        "method": {kind: body},
    }
    if wish.evaluation:
        wanted["evaluation_dataset"] = wish.evaluation
    for name, text in wish.settings.items():
        _put(kind, body, lora, name, _value(name, text))
    if lora and wish.adapter not in ("", "lora"):
        raise UsageError(f"--set lora.{next(iter(lora))} is of an adapter, and {wish.adapter} is asked for; drop one")
    adapter = wish.adapter or ("lora" if lora else IMPLIED_ADAPTER.get(wish.method, ""))
    if adapter:
        wanted["adapter"] = {adapter: lora}
    return read_spec(wanted)


def _method(name: str) -> tuple[str, Mapping[str, object]]:
    if name in ALIASES:
        return ALIASES[name]
    if name in METHODS and name != "debias":
        return name, {}
    known = ", ".join(sorted({*ALIASES, *METHODS} - {"debias"}))
    raise UsageError(f"method {name[:60]!r} is none of {known}; de-biasing takes a specification: cloister job submit")


def _value(name: str, text: str) -> object:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise UsageError(f"--set {name}: the value is not a number or a word") from None


def _put(kind: str, body: dict[str, object], lora: dict[str, object], name: str, value: object) -> None:
    """Where the contract has a value of this name.  Raises UsageError."""
    fields = _FIELDS[kind].message_type.fields_by_name
    if name.startswith("lora."):
        lora[name.removeprefix("lora.")] = value
    elif name in fields:
        body[name] = value
    elif "hyperparameters" in fields and name in spec_pb2.Hyperparameters.DESCRIPTOR.fields_by_name:
        table = body.setdefault("hyperparameters", {})
        table[name] = value  # type: ignore[index]  # the table was made in the line before
    else:
        raise UsageError(f"--set {name[:60]}: {kind} has no such setting; docs/reference/spec.md lists them")
