# SPDX-License-Identifier: Apache-2.0
"""Fields of a specification that do not go together are refused before anything is signed."""

from __future__ import annotations

from string import Formatter

import pytest

from cloister.errors import UsageError
from cloister.spec import read_spec, resolve
from cloister.spec_rules import RULES
from impossible_specs import NO_SPLIT, SPECS, Impossible

UNSHOWN = Impossible("in_context", {"selection": "best"}, "selection is best", "", data=NO_SPLIT)
SECOND = {"wide overlap": {"auxiliary_model": "e"}}
"""What a specification needs to get as far as the rule."""


def said_of(name: str, given: Impossible) -> str:
    with pytest.raises(UsageError) as caught:
        resolve(read_spec({**given.values(), **SECOND.get(name, {})}))
    return str(caught.value)


@pytest.mark.parametrize("name", SPECS)
def test_what_does_not_go_together_is_refused_in_words(name: str) -> None:
    """One line says which setting, with which value, and what to do."""
    said = said_of(name, SPECS[name])
    assert said.startswith("spec: ")
    assert SPECS[name].said in said
    assert "; " in said
    assert "\n" not in said


def test_nothing_to_choose_by_is_refused() -> None:
    """The best of several draws needs validation rows; with some, or at random, none are missed."""
    assert UNSHOWN.said in said_of("", UNSHOWN)
    resolve(read_spec({**UNSHOWN.values(), "validation_dataset": "v"}))
    resolve(read_spec({**UNSHOWN.values(), "method": {"in_context": {"selection": "random"}}}))


def test_every_rule_has_its_case() -> None:
    """Each rule of the table is the one that refuses some specification here."""
    told = [said_of(name, given) for name, given in {**SPECS, "": UNSHOWN}.items()]
    for rule in RULES:
        parts = [text for text, *_ in Formatter().parse(rule.says)]
        assert any(all(part in line for part in parts) for line in told), rule.says


@pytest.mark.parametrize(
    "change",
    [
        {"method": {"classification": {"problem_type": "single_label", "class_weights": "balanced"}}},
        {"method": {"preference": {"loss": "dpo", "label_smoothing": 0.1}}},
        {"method": {"reinforcement": {"generations": 4, "hyperparameters": {"batch_size": 16}}}},
        {"method": {"language_modeling": {"initialisation": "random"}}, "adapter": {"full": {}}},
        {"method": {"distillation": {}}, "auxiliary_model": "t"},
        {"method": {"reward": {}}, "adapter": {"head": {}}},
        {"method": {"supervised": {}}, "adapter": {"lora": {"quantization": "nf4"}}},
        {"method": {"supervised": {}}, "data": {"too_long": "truncate"}},
        {"method": {"supervised": {"hyperparameters": {"keep_best": True}}}},
    ],
)
def test_what_goes_together_stays_allowed(change: dict[str, object]) -> None:
    """The other side of each of these rules resolves."""
    resolve(read_spec({"model": "m", "training_dataset": "d", "purpose": "p", **change}))
