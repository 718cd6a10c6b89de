# SPDX-License-Identifier: Apache-2.0
"""De-biasing jobs: which measures, utilities and mitigations there are, and their defaults.

The worker's own files decide what a name means; this catalogue holds what a specification must spell out before it is
signed.  A site may have added measures and mitigations: any name of the same form is taken, and then nothing is filled
in for it, so its settings, its bar and its margin have to be given.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from cloister.api.v1 import spec_pb2
from cloister.errors import UsageError
from cloister.gate import BARS

CLASSIFIER, CAUSAL, MASKED, ENCODER = "classifier", "causal_lm", "masked_lm", "sentence_encoder"
Settings = Mapping[str, float | int | str]

MAX_NAMES, MAX_SEEDS = 32, 20
AXES: Mapping[str, tuple[str, ...]] = {"de": ("gender",), "en": ("age", "ethnicity", "gender", "religion")}
"""Axes with built-in word lists, by language."""
_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
_AXIS = re.compile(r"[a-z][a-z0-9_]{0,31}(\*[a-z][a-z0-9_]{0,31})*")
_LANGUAGE = re.compile(r"[a-z]{2}")


@dataclass(frozen=True)
class Task:
    """What a job on this kind of model takes where the specification does not say."""

    measures: tuple[str, ...]
    primary: tuple[str, ...]
    utilities: tuple[str, ...]
    hyperparameters: Settings


@dataclass(frozen=True)
class Measure:
    """A measure of bias, or of usefulness."""

    tasks: tuple[str, ...]
    extrinsic: bool = False
    """Whether it is taken on what the model is used for, rather than on its insides."""
    lists: bool = False
    """Whether the built-in word lists of an axis are all that it needs."""
    axes: tuple[str, ...] = ()
    """The only axes that it can be taken on; empty for any."""
    languages: tuple[str, ...] = ()
    """The same of languages."""
    intersections: bool = False
    """Whether it can be taken on an intersection, such as gender*age, where rows state groups or questions of it."""
    few: tuple[str, ...] = ()
    """Axes whose built-in lists give it fewer independent units than the gate believes (`MIN_CLUSTERS`)."""


@dataclass(frozen=True)
class Mitigation:
    """What is done to a model."""

    tasks: tuple[str, ...]
    trained: bool
    """Whether the seed changes its result."""
    settings: Mapping[str, float] = field(default_factory=dict)
    """Its numbers with their defaults."""
    options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Its words with their values, the default first."""


_ENCODERS: Settings = {
    "n_epochs": 2,
    "batch_size": 16,
    "micro_batch_size": 16,
    "learning_rate": 2e-4,
    "lr_scheduler_type": "linear",
    "warmup_ratio": 0.06,
    "weight_decay": 0.0,
    "max_grad_norm": 1.0,
    "max_seq_length": 128,
    "max_steps": 0,
    "n_evals": 4,
    "n_checkpoints": 2,
}
TASKS: Mapping[str, Task] = {
    CLASSIFIER: Task(
        ("flip_rate", "equalized_odds", "demographic_parity", "worst_group_gap", "token_fairness"),
        ("flip_rate", "equalized_odds"),
        ("accuracy",),
        {**_ENCODERS, "n_epochs": 3, "learning_rate": 2e-3, "weight_decay": 0.01},
    ),
    CAUSAL: Task(
        ("pair_preference", "regard"),
        ("pair_preference",),
        ("perplexity",),
        {**_ENCODERS, "batch_size": 8, "micro_batch_size": 8, "lr_scheduler_type": "cosine", "max_seq_length": 1024},
    ),
    MASKED: Task(("pair_preference",), ("pair_preference",), ("masked_perplexity",), _ENCODERS),
    ENCODER: Task(
        ("association", "retrieval_stereotype", "retrieval_swap", "probe_linear", "probe_nonlinear"),
        ("association",),
        ("similarity_structure", "nearest_neighbours"),
        {**_ENCODERS, "learning_rate": 1e-3},
    ),
}

SEEDS = 3
"""Runs of a trained mitigation: one seed says nothing of how much the next would differ."""
_LANGUAGE_MODELS = (CAUSAL, MASKED)
WIDE_LORA: Mapping[str, float | int] = {"rank": 16, "alpha": 32.0, "dropout": 0.0}
"""Adapters of language models: what prejudice says of a word sits in all layers, so all linear ones are adapted."""
WIDE_TARGETS = ("all-linear",)
MEASURES: Mapping[str, Measure] = {
    "flip_rate": Measure((CLASSIFIER,), extrinsic=True),
    "token_fairness": Measure((CLASSIFIER,), extrinsic=True),
    "demographic_parity": Measure((CLASSIFIER,), extrinsic=True, intersections=True),
    "equalized_odds": Measure((CLASSIFIER,), extrinsic=True, intersections=True),
    "worst_group_gap": Measure((CLASSIFIER,), extrinsic=True, intersections=True),
    "impact_ratio": Measure((CLASSIFIER,), extrinsic=True, intersections=True),
    "pair_preference": Measure(_LANGUAGE_MODELS, lists=True),
    "crows_pll_nangia": Measure((MASKED,)),
    "crows_diff_bb": Measure(_LANGUAGE_MODELS),
    "crows_ll_causal": Measure((CAUSAL,)),
    "stereoset": Measure(_LANGUAGE_MODELS),
    "regard": Measure((CAUSAL,), extrinsic=True, lists=True, languages=("en",)),
    "bbq_ambiguous": Measure((CAUSAL,), extrinsic=True, intersections=True),
    "bbq_disambiguated": Measure((CAUSAL,), extrinsic=True, intersections=True),
    "winobias_type1": Measure((CAUSAL,), extrinsic=True, axes=("gender",)),
    "winobias_type2": Measure((CAUSAL,), extrinsic=True, axes=("gender",)),
    "winogender": Measure((CAUSAL,), extrinsic=True, axes=("gender",)),
    "association": Measure((ENCODER,), lists=True),
    "probe_linear": Measure((ENCODER,), lists=True),
    "probe_nonlinear": Measure((ENCODER,), lists=True),
    "retrieval_swap": Measure((ENCODER,), extrinsic=True, lists=True, few=("age", "religion")),
    "retrieval_stereotype": Measure((ENCODER,), extrinsic=True, lists=True),
}
UTILITIES: Mapping[str, Measure] = {
    "accuracy": Measure((CLASSIFIER,)),
    "macro_f1": Measure((CLASSIFIER,)),
    "perplexity": Measure((CAUSAL,)),
    "masked_perplexity": Measure((MASKED,)),
    "stereoset_lms": Measure(_LANGUAGE_MODELS),
    "similarity_structure": Measure((ENCODER,)),
    "nearest_neighbours": Measure((ENCODER,)),
}
MITIGATIONS: Mapping[str, Mitigation] = {
    "counterfactual": Mitigation(
        (CLASSIFIER, CAUSAL, MASKED),
        trained=True,
        settings={"replay": 0.25, "share": 1.0, "kl": 0.0},
        options={"two_axes": ("skip", "swap")},
    ),
    "erasure": Mitigation(
        (CLASSIFIER, ENCODER),
        trained=False,
        settings={"texts": 3000.0, "components": 5.0},
        options={
            "eraser": ("auto", "orthogonal", "mean_difference", "pca", "leace"),
            "data": ("auto", "pairs", "rows"),
        },
    ),
    "consistency": Mitigation((ENCODER,), trained=True, settings={"retention": 1.0, "texts": 3000.0}),
    "pair_balance": Mitigation(
        (CAUSAL,), trained=True, settings={"comparisons": 1000.0, "retained": 2.0, "retention": 0.3}
    ),
    "preference": Mitigation(
        (CAUSAL,),
        trained=True,
        settings={
            "beta": 0.1,
            "sft": 0.1,
            "comparisons": 1000.0,
            "retained": 1.0,
            "retention": 0.1,
            "accuracy": 0.9,
            "kl_budget": 0.1,
        },
    ),
    "reweighing": Mitigation((CLASSIFIER,), trained=True),
    "group_dro": Mitigation(
        (CLASSIFIER,),
        trained=True,
        settings={"step": 0.01, "adjustment": 0.0},
        options={"sampling": ("balanced", "natural")},
    ),
    "thresholds": Mitigation(
        (CLASSIFIER,),
        trained=False,
        options={
            "allow_group_at_inference": ("no", "yes"),
            "constraint": ("equalized_odds", "demographic_parity"),
        },
    ),
}


# ---------------------------------------------------------------- defaults
def defaults_of(wanted: spec_pb2.Debias) -> Settings:
    """Hyper-parameters of the task.  Raises UsageError."""
    return _task(wanted).hyperparameters


def resolve_debias(wanted: spec_pb2.Debias) -> None:
    """Spell out every default but the hyper-parameters, in place, and check what is there.

    Raises UsageError that names the field.
    """
    task = _task(wanted)
    wanted.language = wanted.language or "en"
    wanted.measures[:] = wanted.measures or task.measures
    # Of measures that were chosen by hand, those that decide by default may not be among them.
    wanted.primary[:] = wanted.primary or [name for name in task.primary if name in wanted.measures]
    wanted.utilities[:] = wanted.utilities or task.utilities
    wanted.guard_axes[:] = wanted.guard_axes or _guard_axes(wanted)
    if not wanted.HasField("seeds"):
        known = MITIGATIONS.get(wanted.mitigation.name)
        wanted.seeds = SEEDS if known is None or known.trained else 1
    _resolve_mitigation(wanted)
    _check(wanted)


def _guard_axes(wanted: spec_pb2.Debias) -> list[str]:
    """The other axes with word lists that are enough for every measure; none where a measure needs rows."""
    known = [MEASURES[name] for name in wanted.measures if name in MEASURES]
    if len(known) < len(wanted.measures) or not all(measure.lists for measure in known):
        return []
    return [axis for axis in unwatched(wanted) if not any(axis in measure.few for measure in known)]


def unwatched(wanted: spec_pb2.Debias) -> list[str]:
    """Axes with built-in word lists that are neither mitigated nor guarded."""
    named = {part for axis in (*wanted.axes, *wanted.guard_axes) for part in axis.split("*")}
    return [axis for axis in AXES.get(wanted.language, ()) if axis not in named]


def _task(wanted: spec_pb2.Debias) -> Task:
    if wanted.task not in TASKS:
        raise UsageError(f"spec: task is {wanted.task[:60]!r}; choose one of {', '.join(TASKS)}")
    return TASKS[wanted.task]


def _resolve_mitigation(wanted: spec_pb2.Debias) -> None:
    mitigation = wanted.mitigation
    if not _NAME.fullmatch(mitigation.name):
        raise UsageError(f"spec: mitigation.name is missing or no name; choose one of {', '.join(MITIGATIONS)}")
    known = MITIGATIONS.get(mitigation.name)
    if known is None:
        return
    if wanted.task not in known.tasks:
        fits = ", ".join(name for name, entry in MITIGATIONS.items() if wanted.task in entry.tasks)
        raise UsageError(f"spec: mitigation {mitigation.name} does not fit a {wanted.task}; those that do: {fits}")
    _check_known("settings", mitigation.settings, known.settings)
    _check_known("options", mitigation.options, known.options)
    for name, value in known.settings.items():
        if name not in mitigation.settings:
            mitigation.settings[name] = value
    for name, values in known.options.items():
        if name not in mitigation.options:
            mitigation.options[name] = values[0]
        elif mitigation.options[name] not in values:
            raise UsageError(f"spec: mitigation.options.{name} is none of {', '.join(values)}")


def _check_known(what: str, given: Iterable[str], known: Iterable[str]) -> None:
    stray = sorted(set(given) - set(known))
    if stray:
        takes = ", ".join(known) or "none"
        raise UsageError(f"spec: mitigation.{what}.{stray[0][:60]} is not one that it takes; it takes {takes}")


# ---------------------------------------------------------------- checks
def _check(wanted: spec_pb2.Debias) -> None:
    _check_axes(wanted)
    if not _LANGUAGE.fullmatch(wanted.language):
        raise UsageError("spec: language is not two lower-case letters, such as en")
    _check_measures("measures", wanted.measures, MEASURES, wanted.task)
    _check_measures("utilities", wanted.utilities, UTILITIES, wanted.task)
    stray = sorted(set(wanted.primary) - set(wanted.measures))
    if stray or not wanted.primary or len(set(wanted.primary)) != len(wanted.primary):
        raise UsageError("spec: primary names some of the measures, each once; at least one")
    for name in wanted.primary:
        if name not in BARS and name not in wanted.bars:
            raise UsageError(f"spec: primary measure {name} has no bar; give one under bars, or choose another")
    _check_limits("bars", wanted.bars, wanted.measures, zero=False)
    _check_limits("margins", wanted.margins, wanted.utilities, zero=True)
    for name in wanted.utilities:
        if name not in UTILITIES and name not in wanted.margins:
            raise UsageError(f"spec: utility {name} is not a built-in one; give its margin under margins")
    if not 1 <= wanted.seeds <= MAX_SEEDS:
        raise UsageError(f"spec: seeds is {wanted.seeds}; give 1 to {MAX_SEEDS}")
    if not all(map(math.isfinite, wanted.mitigation.settings.values())):
        raise UsageError("spec: a number under mitigation.settings is not finite")


def _check_axes(wanted: spec_pb2.Debias) -> None:
    _check_names("axes", wanted.axes, _AXIS, "such as gender, or gender*age")
    _check_names("guard_axes", wanted.guard_axes, _AXIS, "such as age, or gender*age")
    if not wanted.axes:
        raise UsageError("spec: axes is missing; name what is to be protected, such as gender")
    if set(wanted.guard_axes) & set(wanted.axes) or len(wanted.axes) + len(wanted.guard_axes) > MAX_NAMES:
        raise UsageError(f"spec: guard_axes names one of the axes, or there are more than {MAX_NAMES} of both together")


def _check_names(what: str, names: Iterable[str], form: re.Pattern[str], example: str) -> None:
    listed = list(names)
    if len(set(listed)) != len(listed) or len(listed) > MAX_NAMES:
        raise UsageError(f"spec: {what} names something twice, or more than {MAX_NAMES} things")
    for name in listed:
        if not form.fullmatch(name):
            raise UsageError(f"spec: {what} holds {name[:60]!r}; give lower-case names {example}")


def _check_measures(what: str, names: Iterable[str], known: Mapping[str, Measure], task: str) -> None:
    listed = list(names)
    _check_names(what, listed, _NAME, f"such as {next(iter(known))}")
    for name in listed:
        if name in known and task not in known[name].tasks:
            fits = ", ".join(entry for entry in known if task in known[entry].tasks)
            raise UsageError(f"spec: {what} holds {name}, which does not fit a {task}; those that do: {fits}")


def _check_limits(what: str, limits: Mapping[str, float], names: Iterable[str], *, zero: bool) -> None:
    """Bars and margins are of what is measured; whether they are tighter than the policy's is checked at submit."""
    listed = set(names)
    for name, value in limits.items():
        if name not in listed:
            raise UsageError(f"spec: {what} holds {name[:60]}, which is not measured; add it there, or remove it here")
        if not math.isfinite(value) or value < 0 or (value == 0 and not zero):
            raise UsageError(f"spec: {what}.{name} is {value:g}; give a number {'from' if zero else 'above'} 0")
