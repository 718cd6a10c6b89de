# SPDX-License-Identifier: Apache-2.0
"""Pair balance: its loss, what it compares, and what it keeps as it was."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from cloister_workers.messages import RefusalReason, RowReason
from cloister_workers.trainer.debias.adapters import adapter_on, causal_objective
from cloister_workers.trainer.debias.comparisons import Comparison, comparisons
from cloister_workers.trainer.debias.lexicon import Lexicon, SwapSet
from cloister_workers.trainer.debias.material import Material, Part
from cloister_workers.trainer.debias.mitigation import Layer, Refused
from cloister_workers.trainer.debias.mitigations.pair_balance import MITIGATION
from cloister_workers.trainer.debias.shapes import Pair
from cloister_workers.trainer.debias.subjects.load import weights_digest
from cloister_workers.trainer.loop import accumulate
from cloister_workers.trainer.objectives.anchor import Before, Divergence, Retaining
from cloister_workers.trainer.objectives.pair_balance import PairBalance
from cloister_workers.trainer.spec import Hyperparameters
from planted import AXIS, FIRST_NAMES, SECOND_NAMES, case_of, load_planted, make_world, write_planted_decoder

HYPERPARAMETERS = Hyperparameters(n_epochs=1, max_steps=2, batch_size=8, learning_rate=1e-2, max_seq_length=32)
CHAIN = ("Borek is kind", "Bolia is kind", "Bolia is bold", "Borek is bold")


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


@pytest.fixture
def objective(case):
    return PairBalance(causal_objective(case))


# ---------------------------------------------------------------- loss
@pytest.mark.parametrize("d", [-3.0, -0.5, 0.0, 0.01, 2.0])
def test_the_loss_is_the_symmetric_divergence_of_the_choice(objective, d):
    """The loss equals KL(p || q) + KL(q || p) of the choice between the texts and the reversed choice, by scipy."""
    fixed = replace(objective, likelihood=Likelihood(torch.tensor([d, 0.0])))
    [example] = objective.read([{"texts": CHAIN[:2]}])
    p = 1 / (1 + math.exp(-d))
    expected = stats.entropy([p, 1 - p], [1 - p, p]) + stats.entropy([1 - p, p], [p, 1 - p])
    assert float(expected) == pytest.approx(float(fixed.outcome(torch.nn.Identity(), [example]).sums), abs=1e-5)


class Likelihood:
    """Texts with the log-likelihoods of our choice."""

    def __init__(self, log_probs):
        self.log_probs = log_probs

    def outcome(self, model, texts):
        from cloister_workers.trainer.example import Outcome

        return Outcome(-self.log_probs, torch.zeros(len(texts)))


def test_leans_are_those_that_a_measure_takes(objective, case, world):
    """The lean of a chain is half the log odds ratio of its texts, as the subject's own log-probabilities give it."""
    model = adapter_on(case)
    chains = [entry.chain() for entry in comparisons(world.fit.lexicons[AXIS], 5, 3)]
    with torch.no_grad():
        leans = objective.leans(model, objective.read([{"texts": chain} for chain in chains])).tolist()
    sums = [[values.sum() for values in case.subject.token_log_probs(chain)] for chain in chains]
    ends = [end_of(model, objective, chain) for chain in chains]
    expected = [((s[0] - s[1]) + (s[2] - s[3])) / 2 + end for s, end in zip(sums, ends, strict=True)]
    assert np.allclose(expected, leans, atol=1e-4)


def end_of(model, objective, chain):
    """What the end-of-text token adds, which a measure leaves out."""
    logs = []
    for text in chain:
        example = objective.likelihood.read([{"text": text}])[0]
        states, targets, _ = objective.likelihood.predictions(model, [example])
        logits = model.get_base_model().get_output_embeddings()(states[-1]).detach()
        logs.append(float(logits.log_softmax(-1)[targets[-1]]))
    return ((logs[0] - logs[1]) + (logs[2] - logs[3])) / 2


def test_texts_that_stand_alone_are_retained(objective, case):
    """Among chains a single text costs strength times how far its predictions moved, and nothing at the start."""
    model = adapter_on(case)
    divergence = Divergence(objective.likelihood, Before(model))
    retaining = Retaining(objective, divergence, 0.5)
    examples = objective.read([{"texts": CHAIN}, {"text": "The river stands near the house today"}])
    start = retaining.outcome(model, examples).sums.detach()
    assert float(start[1]) == pytest.approx(0.0, abs=1e-5)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.3)
    moved = retaining.outcome(model, examples)
    with torch.no_grad():
        assert float(moved.sums[1]) == pytest.approx(0.5 * float(divergence.sums(model, examples[1:])[0]), rel=1e-4)
        assert float(moved.sums[1]) > 0.01
        assert float(moved.sums[0]) == pytest.approx(float(objective.outcome(model, examples[:1]).sums[0]), rel=1e-4)
    loss = accumulate(model, retaining, examples, lambda: None)
    assert loss == pytest.approx(float(moved.sums.detach().mean()), rel=1e-4)
    assert [1, 1] == [retaining.weight(example) for example in examples]


def test_chains_are_never_cut(objective):
    """All texts of a chain go through one forward pass, however few tokens a row has."""
    small = replace(objective, likelihood=replace(objective.likelihood, row_tokens=3))
    examples = small.read([{"texts": CHAIN}, {"texts": CHAIN[:2]}, {"text": "The river"}])
    packed = small.micro_batches(examples)
    assert sorted(map(id, examples)) == sorted(id(example) for micro in packed for example in micro)
    assert [20, 10, 4] == [example.size for example in examples]


@pytest.mark.parametrize("texts", [[], ["one"], ["one", "two", "three"]])
def test_chains_are_of_couples(objective, texts):
    """An odd number of texts, or none, is no chain."""
    assert [RowReason.WRONG_TYPE] == objective.read([{"texts": texts}])


# ---------------------------------------------------------------- comparisons
def test_comparisons_join_what_prejudice_joins(world):
    """First persons stand with first attributes in the stereotype, and both change sides in its counterpart."""
    entry = Comparison("they call {person} {attribute}", ("Borek", "Bolia"), ("bold", "kind"))
    expected = ("They call Borek bold", "They call Bolia bold", "They call Bolia kind", "They call Borek kind")
    assert expected == entry.chain()
    prompts, ways = entry.choices()
    assert (("They call Borek", "They call Bolia"), (" bold", " kind")) == (prompts, ways)


def test_a_template_may_speak_of_the_attribute_first():
    """Where the attribute stands first, prompts differ in it and the ways to go on in the person."""
    entry = Comparison("{attribute} as ever, {person} left", ("Borek", "Bolia"), ("bold", "kind"))
    assert (("Bold as ever,", "Kind as ever,"), (" Borek left", " Bolia left")) == entry.choices()


def test_prompts_and_ways_make_the_chains_sentences(world):
    """Prompt and continuation together are the sentences of the chain, for every comparison of a word list."""
    for entry in comparisons(world.fit.lexicons[AXIS], 50, 1):
        prompts, ways = entry.choices()
        assert set(entry.chain()) == {prompt + way for prompt in prompts for way in ways}


def test_comparisons_follow_from_the_seed_and_use_everything(world):
    """Equal seeds give equal comparisons, another seed others; templates, persons and attributes come alike often."""
    lexicon = world.fit.lexicons[AXIS]
    found = comparisons(lexicon, 600, 1)
    assert 600 == len(found) == len(set(found))
    assert found == comparisons(lexicon, 600, 1)
    assert found != comparisons(lexicon, 600, 2)
    for counts in (
        Counter(entry.template for entry in found),
        Counter(entry.persons[0] for entry in found),
        Counter(entry.attributes[0] for entry in found),
    ):
        assert max(counts.values()) < 4 * min(counts.values())
    assert len(set(lexicon.pair_templates)) == len({entry.template for entry in found})
    assert {persons[0] for persons in (entry.persons for entry in found)} <= set(FIRST_NAMES[:30])
    assert {persons[1] for persons in (entry.persons for entry in found)} <= set(SECOND_NAMES[:30])


def test_a_list_without_persons_templates_or_attributes_gives_none():
    """Nothing is compared where one of the three is missing, or a template lacks a slot."""
    names = (SwapSet(("Borek", "Bolia"), "name", person="{}"),)
    bare = Lexicon(AXIS, "en", ("first", "second"), (), names, pair_templates=("{person} is {attribute}",))
    assert [] == comparisons(bare, 5, 1)
    attributes = make_world(size=4).fit.lexicons[AXIS].associations
    assert comparisons(replace(bare, associations=attributes), 5, 1)
    assert [] == comparisons(replace(bare, associations=attributes, names=()), 5, 1)
    assert [] == comparisons(replace(bare, associations=attributes, pair_templates=("{person} is",)), 5, 1)


# ---------------------------------------------------------------- the mitigation
def test_a_job_without_pairs_is_refused(case, world):
    """Without rows of kind pair and without templates there is nothing to balance."""
    lexicon = replace(world.fit.lexicons[AXIS], pair_templates=())
    empty = replace(case, fit=Part(Material(), {AXIS: lexicon}))
    with pytest.raises(Refused) as caught:
        MITIGATION.refuse(empty)
    assert RefusalReason.NO_PAIRS == caught.value.reason
    MITIGATION.refuse(replace(case, fit=Part(Material.from_rows([Pair(AXIS, *CHAIN[:2])]), {AXIS: lexicon})))


def test_short_lists_are_refused(case, world):
    """A word list under 25 words a group is refused."""
    lexicon = replace(world.fit.lexicons[AXIS], names=world.fit.lexicons[AXIS].names[:24])
    with pytest.raises(Refused) as caught:
        MITIGATION.refuse(replace(case, fit=Part(Material(), {AXIS: lexicon})))
    assert RefusalReason.TOO_FEW_TERMS == caught.value.reason


def test_rows_and_comparisons_are_trained_with_retained_texts(case, world, decoder, tmp_path):
    """Rows of the job's axes count, those of others do not; the adapter that comes out loads and has moved."""
    rows = [Pair(AXIS, *CHAIN[:2]), Pair("age", *CHAIN[2:])]
    fit = Part(Material.from_rows(rows), world.fit.lexicons)
    case = replace(case, fit=fit, settings={**case.settings, "comparisons": 20})
    start = weights_digest(case.subject)
    made = MITIGATION.apply(case)
    assert (1, 20, 42) == (made.notes["pairs"], made.notes["comparisons"], made.notes["texts_retained"])
    assert Layer.ADAPTER is made.layer
    assert start != weights_digest(load_planted(decoder, tmp_path, made.files))
