# SPDX-License-Identifier: Apache-2.0
"""The signed specification of a de-biasing job: `method.debias` of the contract's JobSpec, every default spelled out.

Measures, utilities and the mitigation are known by name (`registry.py`); figures that leave the trainer refer to them
by their place in these lists.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from cloister.evidence.errors import EvidenceError
from cloister.gate import Gate
from cloister_workers.errors import SpecError
from cloister_workers.trainer.debias.kinds import ModelKind
from cloister_workers.trainer.debias.measure import Measure, Utility
from cloister_workers.trainer.debias.mitigation import Mitigation
from cloister_workers.trainer.debias.registry import measures, mitigations, utilities
from cloister_workers.trainer.spec import (
    Data,
    Hyperparameters,
    Lora,
    check,
    check_keys,
    one_key,
    parse_common,
    parse_hyperparameters,
    table_of,
    whole,
)
from cloister_workers.words import FailureCode, SpecField

MAX_NAMES = 32
MAX_SEEDS = 20
_KEYS = frozenset(
    {
        "task",
        "axes",
        "guard_axes",
        "language",
        "mitigation",
        "measures",
        "primary",
        "utilities",
        "bars",
        "margins",
        "seeds",
        "hyperparameters",
    }
)
_LANGUAGE_MODEL = Hyperparameters(learning_rate=2e-4, n_epochs=2, micro_batch_size=1)
DEFAULTS: Mapping[ModelKind, Hyperparameters] = {
    ModelKind.CLASSIFIER: Hyperparameters(learning_rate=2e-3, n_epochs=3),
    ModelKind.CAUSAL: _LANGUAGE_MODEL,
    ModelKind.MASKED: Hyperparameters(learning_rate=2e-4, n_epochs=2),
    ModelKind.ENCODER: Hyperparameters(learning_rate=1e-3, n_epochs=2),
}
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class DebiasSpec:
    """What the trainer needs to know of a de-biasing job."""

    model: str
    """Id of the version that the job starts from; a base model's is written into exports."""
    name: str
    """Of the new version; the start's id where the spec gives none."""
    seed: int
    data: Data
    lora: Lora
    task: ModelKind
    axes: tuple[str, ...]
    guard_axes: tuple[str, ...]
    """Measured beside `axes`, under the rule of harm alone; never mitigated."""
    language: str
    mitigation: Mitigation
    settings: Mapping[str, float]
    """All of the mitigation's."""
    options: Mapping[str, str]
    measures: tuple[Measure, ...]
    primary: frozenset[str]
    utilities: tuple[Utility, ...]
    bars: Mapping[str, float]
    margins: Mapping[str, float]
    seeds: int
    hyperparameters: Hyperparameters

    @property
    def measured_axes(self) -> tuple[str, ...]:
        """All that is measured, in the order in which figures count."""
        return (*self.axes, *self.guard_axes)

    def gate(self, policy: Gate) -> Gate:
        """The gate of the signed policy with this spec's tighter bars. Raises SpecError for a wider one."""
        try:
            return policy.tightened(self.bars, self.margins)
        except (ValueError, EvidenceError) as error:
            raise SpecError(FailureCode.SPEC_INVALID, SpecField.BARS, f"{error}") from None


def is_debias(spec: Mapping[str, object]) -> bool:
    """Whether a job spec asks for de-biasing."""
    method = spec.get("method")
    return isinstance(method, Mapping) and "debias" in method


def parse_debias(spec: Mapping[str, object]) -> DebiasSpec:
    """Read the JSON form of a JobSpec. Raises SpecError naming the field that does not fit."""
    common = parse_common(spec)
    _, body = one_key(spec.get("method"), SpecField.METHOD, {"debias"})
    check_keys(body, _KEYS, SpecField.METHOD)
    check(isinstance(common.adapter, Lora), SpecField.ADAPTER, "adapter.lora: de-biasing trains adapters", "full")
    task = body.get("task")
    check(task in set(ModelKind), SpecField.TASK, f"one of {[*ModelKind]}", task)
    kind = ModelKind(str(task))
    mitigation, settings, options = _mitigation(body.get("mitigation", {}), kind)
    chosen = _chosen(body, "measures", SpecField.MEASURES, measures(), kind)
    primary = _names(body, "primary", SpecField.PRIMARY)
    stray = sorted(set(primary) - {measure.name for measure in chosen})
    check(not stray and bool(primary), SpecField.PRIMARY, "one or more of the measures", stray)
    axes = _names(body, "axes", SpecField.AXES)
    check(bool(axes), SpecField.AXES, "one axis or more, such as gender", list(axes))
    guards = _names(body, "guard_axes", SpecField.AXES)
    apart = not set(axes) & set(guards) and len(axes) + len(guards) <= MAX_NAMES
    check(apart, SpecField.AXES, f"guard_axes apart from axes, at most {MAX_NAMES} together", list(guards))
    seeds = whole(body.get("seeds", 1), SpecField.SEEDS)
    check(1 <= seeds <= MAX_SEEDS, SpecField.SEEDS, f"1 to {MAX_SEEDS}", seeds)
    return DebiasSpec(
        model=common.model,
        name=str(spec.get("suffix") or common.model),
        seed=common.seed,
        data=common.data,
        lora=common.adapter if isinstance(common.adapter, Lora) else Lora(),
        task=kind,
        axes=axes,
        guard_axes=guards,
        language=_language(body.get("language", "en")),
        mitigation=mitigation,
        settings=settings,
        options=options,
        measures=chosen,
        primary=frozenset(primary),
        utilities=_chosen(body, "utilities", SpecField.UTILITIES, utilities(), kind),
        bars=_numbers(body.get("bars", {}), SpecField.BARS),
        margins=_numbers(body.get("margins", {}), SpecField.BARS),
        seeds=seeds,
        hyperparameters=_hyperparameters(body.get("hyperparameters", {}), kind),
    )


def _hyperparameters(value: object, kind: ModelKind) -> Hyperparameters:
    found = parse_hyperparameters(value, DEFAULTS[kind])
    return found if found.micro_batch_size else replace(found, micro_batch_size=found.batch_size)


def _mitigation(value: object, kind: ModelKind) -> tuple[Mitigation, Mapping[str, float], Mapping[str, str]]:
    table = table_of(value, SpecField.MITIGATION)
    check_keys(table, {"name", "settings", "options"}, SpecField.MITIGATION)
    found = mitigations().get(str(table.get("name")))
    if found is None:
        known = ", ".join(mitigations())
        raise SpecError(FailureCode.SPEC_INVALID, SpecField.MITIGATION, f"mitigation.name: give one of {known}")
    fits = ", ".join(sorted(found.kinds))
    check(kind in found.kinds, SpecField.MITIGATION, f"a mitigation for {kind}; {found.name} is for {fits}", kind)
    given = _numbers(table.get("settings", {}), SpecField.MITIGATION)
    check_keys(given, set(found.defaults), SpecField.MITIGATION)
    options = {name: values[0] for name, values in found.choices.items()}
    for name, option in table_of(table.get("options", {}), SpecField.MITIGATION).items():
        allowed = found.choices.get(name, ())
        check(option in allowed, SpecField.MITIGATION, f"{name} as one of {list(allowed)}", option)
        options[name] = str(option)
    return found, {**found.defaults, **given}, options


def _chosen(
    body: Mapping[str, object], key: str, field: SpecField, known: Mapping[str, T], kind: ModelKind
) -> tuple[T, ...]:
    names = _names(body, key, field)
    for name in names:
        check(name in known, field, f"names among {sorted(known)}", name)
        kinds = getattr(known[name], "kinds", ())
        check(kind in kinds, field, f"names that fit {kind}; {name} fits {sorted(kinds)}", name)
    return tuple(known[name] for name in names)


def _names(body: Mapping[str, object], key: str, field: SpecField) -> tuple[str, ...]:
    values = body.get(key, [])
    if not isinstance(values, list | tuple) or not all(isinstance(name, str) and name for name in values):
        raise SpecError(FailureCode.SPEC_INVALID, field, f"{key}: give a list of names")
    check(len(set(values)) == len(values) <= MAX_NAMES, field, f"at most {MAX_NAMES} names, each once", len(values))
    return tuple(values)


def _language(value: object) -> str:
    check(isinstance(value, str) and value.isalpha() and len(value) == 2, SpecField.LANGUAGE, "such as en", value)
    return str(value)


def _numbers(value: object, field: SpecField) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, number in table_of(value, field).items():
        good = isinstance(number, int | float) and not isinstance(number, bool) and math.isfinite(number)
        check(good, field, f"a number for {name}", number)
        found[name] = float(number)  # type: ignore[arg-type]  # checked above
    return found
