# SPDX-License-Identifier: Apache-2.0
"""Preference de-biasing: which pairs a job learns from, and towards what."""

from __future__ import annotations

import math
from array import array
from dataclasses import replace
from typing import Any

import pytest
import torch

from cloister_workers.messages import MetricName, RefusalReason
from cloister_workers.trainer.debias.adapters import adapter_on, causal_objective
from cloister_workers.trainer.debias.comparisons import Comparison
from cloister_workers.trainer.debias.families import Family, from_comparisons, from_rows, goals
from cloister_workers.trainer.debias.lexicon import Lexicon, SwapSet
from cloister_workers.trainer.debias.material import Material, Part
from cloister_workers.trainer.debias.mitigation import Layer, Refused
from cloister_workers.trainer.debias.mitigations.preference import MITIGATION, _Watch
from cloister_workers.trainer.debias.shapes import Preference as Row
from cloister_workers.trainer.debias.subjects.load import weights_digest
from cloister_workers.trainer.example import Example
from cloister_workers.trainer.objectives.anchor import Before, Divergence
from cloister_workers.trainer.objectives.chat import ChatReader
from cloister_workers.trainer.objectives.preference import Preference, Reference
from cloister_workers.trainer.spec import Hyperparameters
from planted import AXIS, case_of, load_planted, make_world, write_planted_decoder

NAMES = tuple(SwapSet((f"Bo{letter}", f"Mi{letter}"), "name") for letter in "abcdefghijklmnopqrstuvwxyz")
GENDER = Lexicon("gender", "en", ("first", "second"), (SwapSet(("he", "she"), "function"),), NAMES)
COLOURS = tuple(SwapSet((f"Ra{n}", f"Ga{n}", f"Ba{n}"), "name") for n in "abcdefghijklmnopqrstuvwxyz")
COLOUR = Lexicon("colour", "en", ("red", "green", "blue"), (), COLOURS)
HYPERPARAMETERS = Hyperparameters(n_epochs=1, max_steps=2, batch_size=8, learning_rate=1e-2, max_seq_length=32)


@pytest.fixture(scope="module")
def world():
    return make_world(size=400, fit_size=240)


@pytest.fixture(scope="module")
def decoder(world, tmp_path_factory):
    return write_planted_decoder(tmp_path_factory.mktemp("decoder"), world, steps=2)


@pytest.fixture
def case(world, decoder, tmp_path):
    parts = (world.fit, world.validation)
    return case_of(MITIGATION, load_planted(decoder, tmp_path), parts, tmp_path, hyperparameters=HYPERPARAMETERS)


# ---------------------------------------------------------------- rows
def test_each_row_is_joined_by_its_swapped_self():
    """Prompt and both completions are said of the other group too, and both rows prefer the same kind of answer."""
    row = Row("Boa asked what he is like.", " Boa is like anybody.", " He is a bold one, as all Bob.")
    expected = [
        Family(("Boa asked what he is like.",), " Boa is like anybody.", " He is a bold one, as all Bob.", given=True),
        Family(
            ("Mia asked what she is like.",), " Mia is like anybody.", " She is a bold one, as all Mib.", given=True
        ),
    ]
    assert expected == from_rows([row], {"gender": GENDER}, 1)


def test_all_texts_of_a_row_change_to_one_group():
    """On an axis of three groups prompt, chosen and rejected go to the same other group."""
    row = Row("Raa and Rab", " Raa left", " Rac left")
    [_, swapped] = from_rows([row], {"colour": COLOUR}, 1)
    initials = {word[0] for text in (*swapped.prompts, swapped.chosen, swapped.rejected) for word in text.split()}
    assert initials in ({"G", "a", "l"}, {"B", "a", "l"})


def test_a_row_that_contradicts_its_swapped_self_says_neither(case):
    """To prefer one group after a neutral prompt becomes: both are equally likely."""
    row = Row("The nurse said that", " he was tired", " she was tired")
    [family] = from_rows([row], {"gender": GENDER}, 1)
    assert not family.given
    assert 0.0 == family.goal([1.7])


def test_rows_that_cannot_be_swapped(case):
    """A row without a term stays as it is; one with a held-out word or on another axis' words is left out."""
    neutral = Row("Water is", " wet", " dry")
    held_out = Row("Boa is", " kind", " bold")
    lexicon = replace(GENDER, names=NAMES[1:], held_out=NAMES[:1])
    found = from_rows([neutral, held_out], {"gender": lexicon}, 1)
    assert [Family(("Water is",), " wet", " dry", given=True)] == found


def test_a_row_names_its_axis(case):
    """A row that names its axis is swapped on that one alone."""
    row = Row("Boa is", " kind", " bold", "gender")
    assert 2 == len(from_rows([row], {"gender": GENDER, "colour": COLOUR}, 1))


def test_equal_rows_count_once(case):
    """A row and another that is its swapped self give two families, not four."""
    rows = [Row("Boa is", " kind", " bold"), Row("Mia is", " kind", " bold")]
    assert 2 == len(from_rows(rows, {"gender": GENDER}, 1))


# ---------------------------------------------------------------- goals
def two_examples():
    return [Example(tokens=array("i"), group=b"", digest=bytes([number])) for number in range(2)]


def objective_of(beta, known):
    """A preference objective that knows its references and needs no model."""
    nothing: Any = None
    return Preference(nothing, beta, reference=known)


def test_built_pairs_aim_at_the_middle_of_both_prompts():
    """Two prompts of one family have the mean of their margins for a goal, which is where their loss is least."""
    beta = 0.4
    margins = (2.0, -1.0)
    examples = two_examples()
    known = {e.digest: Reference(margin, 0.0) for e, margin in zip(examples, margins, strict=True)}
    family = Family(("The first", "The second"), " bold", " kind")
    found = goals(objective_of(beta, known), [(family, examples)])
    for example, margin in zip(examples, margins, strict=True):
        certainty = found[example.digest].certainty
        optimum = margin + math.log(certainty / (1 - certainty)) / beta
        assert optimum == pytest.approx(0.5)
        assert margin == found[example.digest].margin


def test_given_pairs_are_preferred_for_certain():
    """What a row says keeps certainty 1; what it contradicts aims at a margin of 0."""
    examples = two_examples()
    known = {example.digest: Reference(3.0, 1.0) for example in examples}
    families = [
        (Family(("a",), "b", "c", given=True), examples[:1]),
        (Family(("a",), "b", "c"), examples[1:]),
    ]
    found = goals(objective_of(0.5, known), families)
    assert 1.0 == found[b"\0"].certainty
    assert found[b"\1"].certainty == pytest.approx(1 / (1 + math.exp(0.5 * 2.0)))


def test_a_model_without_a_lean_has_nothing_to_learn():
    """Where both prompts have one margin, the loss of built pairs is least on the model before training."""
    examples = two_examples()
    known = {example.digest: Reference(-4.0, -5.5) for example in examples}
    family = Family(("The first", "The second"), " bold", " kind")
    found = goals(objective_of(0.1, known), [(family, examples)])
    assert [0.5, 0.5] == [entry.certainty for entry in found.values()]


def test_neither_completion_is_always_the_chosen_one():
    """Of built families half call the first completion chosen, because nothing tells them apart."""
    entry = Comparison("{person} is {attribute}", ("Boa", "Mia"), ("bold", "kind"))
    found = from_comparisons([entry, replace(entry, persons=("Bob", "Mib"))])
    assert [" bold", " kind"] == [family.chosen for family in found]
    assert ("Bob is", "Mib is") == found[1].prompts


# ---------------------------------------------------------------- the mitigation
def test_nothing_to_prefer_is_refused(case, world):
    """Without rows and without what pairs are built from a job is refused, and with short lists too."""
    lexicon = world.fit.lexicons[AXIS]
    for changed, reason in (
        (replace(lexicon, associations=()), RefusalReason.NO_PAIRS),
        (replace(lexicon, names=lexicon.names[:20]), RefusalReason.TOO_FEW_TERMS),
    ):
        with pytest.raises(Refused) as caught:
            MITIGATION.refuse(replace(case, fit=Part(Material(), {AXIS: changed})))
        assert reason == caught.value.reason


def test_built_pairs_train_an_adapter(case, decoder, tmp_path):
    """Each comparison gives two pairs; the adapter that comes out loads, has moved, and its steps are told."""
    case = replace(case, settings={**case.settings, "comparisons": 30})
    start = weights_digest(case.subject)
    made = MITIGATION.apply(case)
    assert (60, 0) == (made.notes["pairs"], made.notes["pairs_given"])
    assert (60, 2) == (made.notes["texts_retained"], made.steps)
    assert made.notes["moved"] > 0
    assert Layer.ADAPTER is made.layer
    assert start != weights_digest(load_planted(decoder, tmp_path, made.files))


def test_rows_train_in_place_of_built_pairs(case, world):
    """With rows of kind preference nothing is built; unusable rows are counted."""
    [first, second] = world.fit.lexicons[AXIS].names[:2]
    rows = [
        Row(f"People say that {first.words[0]} is", " kind", " bold"),
        Row("Nobody thought", f" {second.words[0]} left", f" {second.words[1]} left"),
        Row(f"People say that {first.words[1]} is " + "so " * 40, " warm", " loud"),
        Row("They found", " warm", " loud", "age"),
    ]
    fit = Part(Material.from_rows(rows), world.fit.lexicons)
    made = MITIGATION.apply(replace(case, fit=fit, validation=Part(Material(), {})))
    assert (3, 2, 1) == tuple(made.notes[name] for name in ("pairs", "pairs_given", "pairs_contradicted"))
    assert 2 == made.notes["pairs_unusable"]


def test_training_ends_where_rows_are_preferred_or_the_budget_is_spent(case):
    """Reward accuracy ends training for rows alone; movement on neutral texts beyond the budget ends it always."""
    case = replace(case, settings={**case.settings, "kl_budget": 1e-3})
    model = adapter_on(case)
    likelihood = causal_objective(case)
    divergence = Divergence(likelihood, Before(model))
    good, none = {MetricName.EVAL_ACCURACY: 0.95, MetricName.EVAL_LOSS: 0.5}, {MetricName.EVAL_LOSS: 0.5}
    given, built = (_Watch(case, model, divergence, given=given) for given in (True, False))
    assert [True, False] == [given(good), given(none)]
    assert [False, False] == [built(good), built(none)]
    assert given.moved() == pytest.approx(0.0, abs=1e-6)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter))
    assert built.moved() > case.settings["kl_budget"] > 0
    assert built(none)
    unlimited = replace(case, settings={**case.settings, "kl_budget": 0.0})
    assert not _Watch(unlimited, model, divergence, given=False)(none)


def test_families_are_read_as_pairs_of_texts(case):
    """A family's rows are what the preference objective reads: prompt, chosen, rejected."""
    reader = ChatReader(case.subject.tokenizer, 32)
    objective = Preference(replace(causal_objective(case), reader=reader))
    read: list[Any] = objective.read(Family(("The river", "The house"), " left", " works").rows())
    [first, second] = read
    assert first.digest != second.digest
    assert first.tokens[:3] != second.tokens[:3]
    assert [2, 2] == [sum(first.learned), sum(first.other.learned)]
