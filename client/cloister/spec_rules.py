# SPDX-License-Identifier: Apache-2.0
"""What a specification may not say together: rules over more than one field, checked before anything is signed.

The trainer refuses the same on its own, as it trusts no client; here each is refused before a host is asked, and in
words.  Ranges of single fields stand in spec.proto.  What depends on the model or the rows, the trainer alone can see.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from cloister.api.v1 import spec_pb2
from cloister.errors import UsageError
from cloister.settings import HYPERPARAMETERS

_METHODS: Mapping[str, Any] = spec_pb2.Method.DESCRIPTOR.fields_by_name
ALL = frozenset(_METHODS)
TRAINED = frozenset(name for name in ALL if HYPERPARAMETERS in _METHODS[name].message_type.fields_by_name)
COMPARED = frozenset({"preference", "reward"})
"""Their completions are compared, so none may be cut."""
HEADLESS = frozenset({"supervised", "preference", "reinforcement", "distillation", "embedding"})
"""Their models have no head of a task."""


@dataclass(frozen=True)
class Asked:
    """A resolved specification, and the parts of it that rules speak of."""

    spec: spec_pb2.JobSpec
    kind: str
    """Name of the method."""
    method: Any
    """Its settings."""
    training: Any
    """Its hyper-parameters; None where nothing is trained."""
    adapter: str
    """lora, full or head; empty where nothing is trained."""

    @property
    def lora(self) -> spec_pb2.Lora:
        """Empty with another adapter."""
        return self.spec.adapter.lora

    @property
    def validated(self) -> bool:
        """Whether there are validation rows, as far as a specification can tell."""
        return bool(self.spec.validation_dataset) or self.spec.data.validation_fraction > 0

    @property
    def truncates(self) -> bool:
        """Whether long rows are to be cut."""
        return self.spec.data.too_long == "truncate"


class Rule(NamedTuple):
    """For specifications of these methods."""

    methods: Collection[str]
    broken: Callable[[Asked], bool]
    says: str
    """What is wrong, with which value, and what to do; a template over `Asked`."""


def check_rules(spec: spec_pb2.JobSpec) -> None:
    """Raise UsageError for the first rule that a resolved specification breaks."""
    kind = str(spec.method.WhichOneof("type"))
    method = getattr(spec.method, kind)
    adapter = str(spec.adapter.WhichOneof("type") or "")
    asked = Asked(spec, kind, method, getattr(method, HYPERPARAMETERS, None), adapter)
    for rule in RULES:
        if kind in rule.methods and rule.broken(asked):
            raise UsageError("spec: " + rule.says.format(**vars(asked)))


def _weighs_several(a: Asked) -> bool:
    return bool(a.method.class_weights != "none" and a.method.problem_type != "single_label")


def _has_no_head(a: Asked) -> bool:
    generative = a.kind == "question_answering" and a.method.form == "generative"
    return a.adapter == "head" and (a.kind in HEADLESS or generative)


def _cuts_compared(a: Asked) -> bool:
    return a.truncates and (a.kind != "evaluation" or a.method.task in COMPARED)


def _no_room(a: Asked) -> bool:
    length = a.method.max_seq_length if a.training is None else a.training.max_seq_length
    return bool(a.method.max_new_tokens >= length)


RULES: tuple[Rule, ...] = (
    # ---------------------------------------------------------------- any method
    Rule(
        ALL,
        lambda a: a.spec.data.validation_fraction + a.spec.data.evaluation_fraction >= 1,
        "validation_fraction {spec.data.validation_fraction:g} and evaluation_fraction "
        "{spec.data.evaluation_fraction:g} leave no row to train on; give fractions that add up to less than 1",
    ),
    # ---------------------------------------------------------------- any that trains
    Rule(TRAINED, lambda a: a.training.learning_rate == 0, "learning_rate is 0; give a number above 0"),
    Rule(
        TRAINED,
        lambda a: a.training.micro_batch_size > a.training.batch_size,
        "micro_batch_size is {training.micro_batch_size}, above batch_size {training.batch_size}; lower it",
    ),
    Rule(
        TRAINED - {"debias", "reinforcement"},
        lambda a: a.training.keep_best and not a.validated,
        "keep_best is true, which goes by validation rows, and there are none; name a validation_dataset, or give "
        "validation_fraction",
    ),
    Rule(
        TRAINED - {"debias", "reinforcement"},
        lambda a: a.training.early_stop_patience > 0 and not a.validated,
        "early_stop_patience is {training.early_stop_patience}, which goes by validation rows, and there are none; "
        "name a validation_dataset, or give validation_fraction",
    ),
    Rule(
        TRAINED,
        lambda a: a.adapter == "lora" and a.lora.alpha == 0,
        "alpha is 0, with which the adapter changes nothing; give a number above 0",
    ),
    Rule(TRAINED, lambda a: "" in a.lora.target_modules, "target_modules holds an empty name; leave it out"),
    Rule(
        TRAINED,
        lambda a: a.lora.merge and a.lora.quantization == "nf4",
        "quantization is nf4 with merge, which would merge into 4 bits; leave one of them out",
    ),
    Rule(
        TRAINED,
        _has_no_head,
        "adapter is head, but a model for {kind} has no head of its own; give lora or full",
    ),
    # ---------------------------------------------------------------- one method each
    Rule(
        {"classification"},
        _weighs_several,
        "class_weights is {method.class_weights} with problem_type {method.problem_type}; it belongs to single_label, "
        "leave it out",
    ),
    Rule(
        {"language_modeling"},
        lambda a: a.method.tokenizer == "trained" and a.method.initialisation != "random",
        "tokenizer is trained, but pretrained weights know another; give initialisation random, or tokenizer given",
    ),
    Rule(
        {"language_modeling"},
        lambda a: a.method.initialisation == "random" and a.adapter != "full",
        "initialisation is random with adapter {adapter}, but random weights must all be trained; give adapter full",
    ),
    Rule(
        {"question_answering"},
        lambda a: a.truncates and a.method.form == "generative",
        "too_long is truncate with form generative, whose prompts are not cut; give refuse",
    ),
    Rule(
        {"preference"},
        lambda a: a.method.label_smoothing > 0 and a.method.loss != "dpo",
        "label_smoothing is {method.label_smoothing:g} with loss {method.loss}; it belongs to dpo, leave it out",
    ),
    Rule(
        {*COMPARED, "reinforcement", "evaluation"},
        _cuts_compared,
        "too_long is truncate, but completions that are compared or rewarded are not cut; give refuse",
    ),
    Rule(
        {"reinforcement"},
        lambda a: a.training.batch_size % a.method.generations != 0,
        "batch_size is {training.batch_size}, which counts answers; give a multiple of generations, "
        "{method.generations}",
    ),
    Rule(
        {"reinforcement"},
        lambda a: a.training.micro_batch_size == 0,
        "micro_batch_size is 0, and reinforcement finds none by itself; give 1 or more",
    ),
    Rule(
        {"reinforcement"},
        lambda a: a.training.keep_best,
        "keep_best is true, but reinforcement ends with the weights of its last step; leave it out",
    ),
    Rule(
        {"reinforcement"},
        lambda a: a.training.early_stop_patience > 0,
        "early_stop_patience is {training.early_stop_patience}, but reinforcement takes all its steps; leave it out",
    ),
    Rule(
        {"reinforcement"},
        _no_room,
        "max_seq_length is {training.max_seq_length}, which leaves no room for a prompt; give more than "
        "max_new_tokens, {method.max_new_tokens}",
    ),
    Rule(
        {"reinforcement"},
        lambda a: a.method.beta > 0 and a.adapter != "lora",
        "beta is {method.beta:g}, which compares with the model without its adapter, and adapter is {adapter}; give "
        "lora, or leave beta out",
    ),
    Rule(
        {"reinforcement"},
        lambda a: a.method.reward == "model" and not a.spec.auxiliary_model,
        "auxiliary_model is missing, and reward is model; name the reward model (tune: --with)",
    ),
    Rule(
        {"distillation"},
        lambda a: not a.spec.auxiliary_model,
        "auxiliary_model is missing; name the teacher (tune: --with)",
    ),
    Rule(
        {"retrieval"},
        lambda a: not a.spec.auxiliary_model,
        "auxiliary_model is missing; name the encoder of the index (tune: --with)",
    ),
    Rule(
        {"retrieval"},
        lambda a: a.method.overlap > a.method.chunk_tokens // 2,
        "overlap is {method.overlap}; give at most half of chunk_tokens, {method.chunk_tokens}",
    ),
    Rule(
        {"in_context"},
        lambda a: a.method.selection == "nearest" and not a.spec.auxiliary_model,
        "auxiliary_model is missing, and selection is nearest; name the encoder (tune: --with)",
    ),
    Rule(
        {"in_context"},
        lambda a: a.method.selection == "best" and not a.validated,
        "selection is best, which needs validation rows, and there are none; name a validation_dataset, give "
        "validation_fraction, or choose random",
    ),
    Rule(
        {"in_context"},
        _no_room,
        "max_seq_length is {method.max_seq_length}, which leaves no room for a prompt; give more than "
        "max_new_tokens, {method.max_new_tokens}",
    ),
    Rule({"evaluation"}, lambda a: not a.method.task, "task is missing; name the method that the rows are of"),
    Rule(
        {"inference"},
        lambda a: a.method.task == "generate" and _no_room(a),
        "max_seq_length is {method.max_seq_length}, which leaves no room for a prompt; give more than "
        "max_new_tokens, {method.max_new_tokens}",
    ),
)
