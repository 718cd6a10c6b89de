# SPDX-License-Identifier: Apache-2.0
"""`cloister tune`: the specification that a few words make."""

from __future__ import annotations

import pytest

from cloister.errors import UsageError
from cloister.spec import resolve
from cloister.tuning import ALIASES, METHODS, Wish, spec_of


def wish(method: str, **more):
    return spec_of(Wish(base="m", data="d", method=method, purpose="p", **more))


@pytest.mark.parametrize("name", sorted({*ALIASES, *METHODS} - {"debias", "evaluation"}))
def test_every_name_makes_a_specification(name):
    """Each method, by the contract's name and by those known elsewhere, resolves."""
    kind = ALIASES[name][0] if name in ALIASES else name
    assert kind == resolve(wish(name, auxiliary="second")).method.WhichOneof("type")


def test_pretraining_trains_every_weight():
    """Random weights are no base of an adapter: the name implies that all of them learn, and an adapter is refused."""
    assert "full" == resolve(wish("pretrain")).adapter.WhichOneof("type")
    assert "lora" == resolve(wish("cpt")).adapter.WhichOneof("type")
    for asked in ({"adapter": "head"}, {"settings": {"lora.rank": "4"}}):
        with pytest.raises(UsageError, match="give adapter full"):
            resolve(wish("pretrain", **asked))


def test_names_known_elsewhere_say_settings():
    """kto is the preference loss kto, pretrain begins from random weights."""
    assert "kto" == wish("kto").method.preference.loss
    assert "random" == wish("pretrain").method.language_modeling.initialisation


def test_values_go_where_they_belong():
    """Hyper-parameters, settings of the method and of the adapter are told apart by their names."""
    settings = {"n_epochs": "2", "beta": "0.3", "lora.rank": "16", "lora.dora": "true", "learning_rate": "auto"}
    made = resolve(wish("dpo", settings=settings, evaluation="e", replay="r", name="n"))
    assert (2, 0.3) == (made.method.preference.hyperparameters.n_epochs, made.method.preference.beta)
    assert (16, True) == (made.adapter.lora.rank, made.adapter.lora.dora)
    assert ("e", "r", "n") == (made.evaluation_dataset, made.replay_dataset, made.suffix)
    assert "full" == resolve(wish("sft", adapter="full")).adapter.WhichOneof("type")


@pytest.mark.parametrize(
    ("method", "more", "said"),
    [
        ("magic", {}, "magic"),
        ("debias", {}, "specification"),
        ("sft", {"settings": {"wheels": "4"}}, "wheels"),
        ("sft", {"settings": {"lora.rank": "4"}, "adapter": "full"}, "lora.rank"),
        ("sft", {"settings": {"n_epochs": "["}}, "n_epochs"),
    ],
)
def test_what_does_not_fit_is_refused(method, more, said):
    """A name or value that nothing answers to is refused in words."""
    with pytest.raises(UsageError, match=said):
        wish(method, **more)
