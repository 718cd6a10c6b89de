# SPDX-License-Identifier: Apache-2.0
"""Counterfactual augmentation: which texts a model trains on, for every kind of model."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from cloister_workers.messages import MetricName, RefusalReason
from cloister_workers.trainer.debias.adapters import no_longer_better, retained_texts
from cloister_workers.trainer.debias.kinds import ModelKind
from cloister_workers.trainer.debias.lexicon import Lexicon, SwapSet
from cloister_workers.trainer.debias.material import Material, Part
from cloister_workers.trainer.debias.mitigation import Layer, Refused
from cloister_workers.trainer.debias.mitigations.counterfactual import MITIGATION, augment
from cloister_workers.trainer.debias.shapes import Labelled, Text
from cloister_workers.trainer.debias.subjects.load import load_subject, weights_digest
from cloister_workers.trainer.debias.swapping import Why
from cloister_workers.trainer.debias.training import Trained
from cloister_workers.trainer.objectives.anchor import Anchored
from cloister_workers.trainer.objectives.masked_language_model import MaskedLanguageModel
from cloister_workers.trainer.spec import Hyperparameters
from planted import CPU, case_of, load_planted, make_world, write_planted_decoder, write_tiny_masked
from tiny_classifier import adapted_subject

NAMES = tuple(SwapSet((f"Bo{letter}", f"Mi{letter}"), "name") for letter in "abcdefghijklmnopqrstuvwxyz")
GENDER = Lexicon("gender", "en", ("first", "second"), (SwapSet(("he", "she"), "function"),), NAMES)
AGE = Lexicon(
    "age",
    "en",
    ("old", "young"),
    tuple(SwapSet((f"elder{n}s", f"youth{n}s"), "noun") for n in "abcdefghijklmnopqrstuvwxyz"),
)
LEXICONS = {"gender": GENDER, "age": AGE}
HYPERPARAMETERS = Hyperparameters(n_epochs=1, max_steps=2, batch_size=8, learning_rate=1e-2, max_seq_length=32)


@dataclass
class Recorded:
    """Stands where the training loop would: keeps what it was asked to train on."""

    parts: Any = None
    objective: Any = None
    enough: Any = None
    polls: list[int] = field(default_factory=list)

    def __call__(self, model, objective, parts, hyperparameters, seed, enough=None):
        self.parts, self.objective, self.enough = parts, objective, enough
        return Trained(1, 1, 0.0)

    def poll(self):
        self.polls.append(1)


@pytest.fixture(scope="module")
def world():
    return make_world(size=400, fit_size=240)


@pytest.fixture(scope="module")
def decoder(world, tmp_path_factory):
    return write_planted_decoder(tmp_path_factory.mktemp("decoder"), world, steps=2)


@pytest.fixture(scope="module")
def masked(tmp_path_factory):
    return write_tiny_masked(tmp_path_factory.mktemp("masked"))


def part_of(rows, lexicons=None):
    return Part(Material.from_rows(rows), LEXICONS if lexicons is None else lexicons)


def case_with(rows, tmp_path, lexicons=None, **settings):
    parts = part_of(rows, lexicons), Part(Material(), {})
    return case_of(MITIGATION, None, parts, tmp_path, **settings)


def texts_of(recorded, tokenizer):
    """What the recorded training was given, as words."""
    return [tokenizer.decode(example.tokens, skip_special_tokens=True) for example in recorded.parts.training]


# ---------------------------------------------------------------- texts
def test_copies_say_the_same_of_the_other_group(tmp_path):
    """A text with terms stays and gets one copy with all of them swapped; a text without a term is replay."""
    texts = ["Boa says that he saw Mib", "The river is far"]
    found = augment(texts, case_with([], tmp_path), LEXICONS)
    assert ((0, "Mia says that she saw Bob"),) == found.copies
    assert ((0,), (1,)) == (found.sources, found.neutral)


def test_several_axes_give_a_copy_each(tmp_path):
    """With two axes each text is swapped on the axis of its own terms."""
    case = case_with([], tmp_path, axes=("gender", "age"))
    found = augment(["Boa sleeps", "The elderas sleep"], case, LEXICONS)
    assert ((0, "Mia sleeps"), (1, "The youthas sleep")) == found.copies


def test_texts_with_two_axes_are_left_out_unless_asked(tmp_path):
    """A text that speaks of two axes is skipped and counted; the option gives it a copy for each axis."""
    texts = ["Boa likes elderas"]
    case = case_with([], tmp_path, axes=("gender", "age"))
    found = augment(texts, case, LEXICONS)
    assert ((), (), {Why.SEVERAL_AXES: 1}) == (found.sources, found.copies, dict(found.skipped))
    asked = augment(texts, replace(case, options={"two_axes": "swap"}), LEXICONS)
    assert ((0, "Mia likes elderas"), (0, "Boa likes youthas")) == asked.copies


def test_words_of_other_parts_are_left_out(tmp_path):
    """A text with a held-out word would teach one side alone, so it is neither swapped nor kept."""
    kept_back = replace(GENDER, names=NAMES[1:], held_out=NAMES[:1])
    found = augment(["Boa sleeps", "Bob sleeps"], case_with([], tmp_path), {"gender": kept_back})
    assert (((1, "Mib sleeps"),), (1,)) == (found.copies, found.sources)
    assert {Why.HELD_OUT: 1} == dict(found.skipped)


def test_an_intersection_counts_by_its_parts(tmp_path):
    """The axis gender*age swaps on gender and on age."""
    case = case_with([], tmp_path, axes=("gender*age",))
    assert 2 == len(augment(["Boa sleeps", "The elderas sleep"], case, LEXICONS).copies)


def test_the_share_of_copies_is_drawn_from_the_seed(tmp_path):
    """`share` keeps about that share of the copies, the same for one seed, others for another; 0 keeps none."""
    texts = [f"Boa sleeps {number} times" for number in range(400)]
    case = case_with([], tmp_path)
    half = augment(texts, case, LEXICONS, 0.5)
    assert 150 < len(half.copies) < 250
    assert half == augment(texts, case, LEXICONS, 0.5)
    assert half.copies != augment(texts, replace(case, seed=2), LEXICONS, 0.5).copies
    assert () == augment(texts, case, LEXICONS, 0.0).copies
    assert 400 == len(augment(texts, case, LEXICONS, 0.0).sources)


def test_the_job_can_be_cancelled_while_texts_are_swapped(tmp_path):
    """Every text is a chance to stop."""
    recorded = Recorded()
    augment(["Boa sleeps"] * 7, replace(case_with([], tmp_path), training=recorded), LEXICONS)
    assert 7 == len(recorded.polls)


# ---------------------------------------------------------------- refusals
def test_nothing_to_swap_is_refused(tmp_path):
    """Texts without a term of the axis, or an axis without a word list, are refused as NO_PAIRS."""
    given: tuple[dict[str, Lexicon] | None, ...] = (None, {})
    for lexicons in given:
        with pytest.raises(Refused) as caught:
            MITIGATION.refuse(case_with([Text("The river is far")], tmp_path, lexicons))
        assert RefusalReason.NO_PAIRS == caught.value.reason
        assert "river" not in str(caught.value)


def test_short_lists_are_refused_and_parts_are_counted_together(tmp_path):
    """A group with fewer than 25 words is refused, counting the words that belong to other parts."""
    rows = [Text("Boz sleeps")]
    with pytest.raises(Refused) as caught:
        MITIGATION.refuse(case_with(rows, tmp_path, {"gender": replace(GENDER, names=NAMES[2:])}))
    assert RefusalReason.TOO_FEW_TERMS == caught.value.reason
    MITIGATION.refuse(case_with(rows, tmp_path, {"gender": replace(GENDER, names=NAMES[2:], held_out=NAMES[:2])}))


# ---------------------------------------------------------------- models
def test_a_decoder_trains_on_both_sides_and_on_replay(world, decoder, tmp_path):
    """Every stereotyped text is there twice with the groups exchanged, and the share of other texts is as it was."""
    subject = load_planted(decoder, tmp_path)
    case = case_of(MITIGATION, subject, (world.fit, world.validation), tmp_path, hyperparameters=HYPERPARAMETERS)
    case = replace(case, training=(recorded := Recorded()))
    made = MITIGATION.apply(case)
    texts = texts_of(recorded, subject.tokenizer)
    first, second = (sum(any(name in text for name in names) for text in texts) for names in group_names(world))
    assert first == second == 120
    assert 480 == len(texts) == made.notes["texts"]
    assert (120, 120) == (made.notes["texts_swapped"], made.notes["texts_with_terms"])
    assert 0.5 == made.notes["replay_share"]
    assert (0, 0) == (made.notes["texts_skipped"], made.notes["texts_cut"])
    assert 10 + 2 * 10 == len(recorded.parts.validation)
    assert Layer.ADAPTER is made.layer


def group_names(world):
    return zip(*(entry.words for entry in world.fit.lexicons["gender"].names), strict=True)


def test_a_sham_trains_on_the_texts_as_they_are(world, decoder, tmp_path):
    """With share 0 the training texts are the fit part's own and nothing else."""
    subject = load_planted(decoder, tmp_path)
    case = case_of(
        MITIGATION,
        subject,
        (world.fit, world.validation),
        tmp_path,
        settings={"share": 0},
        hyperparameters=HYPERPARAMETERS,
    )
    case = replace(case, training=(recorded := Recorded()))
    MITIGATION.apply(case)
    expected = sorted(row.text for row in world.fit.rows.of(Text))
    assert expected == sorted(texts_of(recorded, subject.tokenizer))


def test_too_little_replay_is_filled_up(world, decoder, tmp_path):
    """Where no text is free of terms, the neutral sentences of the word list are replayed up to the share."""
    subject = load_planted(decoder, tmp_path)
    names = " ".join(world.fit.lexicons["gender"].names[0].words[:1])
    fit = Part(Material.from_rows([Text(f"{names} lives by the river")] * 300), world.fit.lexicons)
    case = case_of(MITIGATION, subject, (fit, Part(Material(), {})), tmp_path, hyperparameters=HYPERPARAMETERS)
    case = replace(case, training=(recorded := Recorded()))
    made = MITIGATION.apply(case)
    assert 0.25 == made.notes["replay_share"]
    assert 200 == made.notes["texts_replayed"] > 50 == len(world.fit.lexicons["gender"].neutral)
    assert set(texts_of(recorded, subject.tokenizer)) >= set(world.fit.lexicons["gender"].neutral)
    assert not recorded.parts.validation


def test_an_adapter_is_trained_and_loads_again(world, decoder, tmp_path):
    """The exported adapter changes the model that it loads onto; a second job goes on with it as one adapter."""
    before = load_planted(decoder, tmp_path)
    start = weights_digest(before)
    case = case_of(MITIGATION, before, (world.fit, world.validation), tmp_path, hyperparameters=HYPERPARAMETERS)
    first = MITIGATION.apply(case)
    assert {"adapter_config.json", "adapter_model.safetensors"} <= first.files.keys()
    again = load_planted(decoder, tmp_path, first.files)
    assert start != weights_digest(again)
    text = ["The river stands near the house today"]
    moved = again.token_log_probs(text)[0]
    assert abs(moved - load_planted(decoder, tmp_path).token_log_probs(text)[0]).max() > 1e-4

    case = case_of(MITIGATION, again, (world.fit, world.validation), tmp_path, hyperparameters=HYPERPARAMETERS, seed=2)
    second = load_planted(decoder, tmp_path, MITIGATION.apply(case).files)
    assert ["default"] == list(second.model.peft_config)
    assert abs(moved - second.token_log_probs(text)[0]).max() > 1e-4


def test_the_seed_decides(world, decoder, tmp_path):
    """Equal seeds give equal adapters to the byte; another seed gives another."""

    def files(seed):
        subject = load_planted(decoder, tmp_path)
        parts = (world.fit, world.validation)
        return MITIGATION.apply(
            case_of(MITIGATION, subject, parts, tmp_path, hyperparameters=HYPERPARAMETERS, seed=seed)
        ).files["adapter_model.safetensors"]

    assert files(1) == files(1)
    assert files(1) != files(2)


def test_kl_holds_on_to_the_model_before(world, decoder, tmp_path):
    """With `kl` the objective is the anchored one with that strength."""
    subject = load_planted(decoder, tmp_path)
    case = case_of(
        MITIGATION,
        subject,
        (world.fit, world.validation),
        tmp_path,
        settings={"kl": 0.5},
        hyperparameters=HYPERPARAMETERS,
    )
    case = replace(case, training=(recorded := Recorded()))
    MITIGATION.apply(case)
    assert isinstance(recorded.objective, Anchored)
    assert 0.5 == recorded.objective.strength


def test_a_masked_model_is_trained_with_masks(world, masked, tmp_path):
    """A masked model gets an adapter through the masked loss, which loads onto it again."""
    subject = load_subject(ModelKind.MASKED, str(masked), None, str(tmp_path), CPU, lambda: None)
    start = weights_digest(subject)
    case = case_of(
        MITIGATION,
        subject,
        (world.fit, world.validation),
        tmp_path,
        kind=ModelKind.MASKED,
        hyperparameters=HYPERPARAMETERS,
    )
    made = MITIGATION.apply(case)
    again = load_subject(ModelKind.MASKED, str(masked), made.files, str(tmp_path), CPU, lambda: None)
    assert start != weights_digest(again)
    recorded = Recorded()
    MITIGATION.apply(replace(case, subject=again, training=recorded))
    assert isinstance(recorded.objective, MaskedLanguageModel)


def test_a_classifiers_copy_keeps_the_label(bert_dir, tmp_path):
    """A row and its copy have one label, validation rows get copies too, and the classifier goes on training."""
    lexicon = replace(GENDER, names=(*NAMES, SwapSet(("alpha", "bravo"), "name")))
    rows = [Labelled(f"alpha {word}", label) for word, label in (("golf", "yes"), ("hotel", "no"))]
    rows.append(Labelled("delta echo", "no"))
    fit, check = part_of(rows, {"gender": lexicon}), part_of(rows[:1], {"gender": lexicon})
    subject = adapted_subject(bert_dir)
    digest = weights_digest(subject)
    case = case_of(
        MITIGATION, subject, (fit, check), tmp_path, kind=ModelKind.CLASSIFIER, hyperparameters=HYPERPARAMETERS
    )
    made = MITIGATION.apply(case)
    assert (2, 1 / 3) == (made.notes["texts_swapped"], made.notes["replay_share"])
    assert Layer.ADAPTER is made.layer
    assert digest != weights_digest(subject)
    recorded = Recorded()
    MITIGATION.apply(replace(case, subject=adapted_subject(bert_dir), training=recorded))
    parts = recorded.parts
    given = [(subject.tokenizer.decode(e.tokens), e.label) for e in parts.training]
    assert [("alpha golf", "yes"), ("alpha hotel", "no"), ("bravo golf", "yes"), ("bravo hotel", "no")] == given[:4]
    assert [("delta echo", "no")] * 2 == given[4:]
    assert ["yes", "yes"] == [example.label for example in parts.validation]


# ---------------------------------------------------------------- what mitigations share
def test_training_ends_at_the_second_rise():
    """One bad evaluation does not end training, two in a row above the lowest do."""
    enough = no_longer_better()
    losses = [3.0, 2.0, 2.5, 1.9, 2.1, 1.95]
    assert [False] * 5 + [True] == [enough({MetricName.EVAL_LOSS: loss}) for loss in losses]


def test_retained_texts_come_from_every_source(world, decoder, tmp_path):
    """Plain texts, neutral sentences and built ones alternate, the same for one seed, and come again where few."""
    case = case_of(MITIGATION, None, (world.fit, world.validation), tmp_path)
    built = ["Said of somebody", "Said of another"]
    texts = retained_texts(case, built, 30)
    own = {row.text for row in world.fit.rows.of(Text)}
    assert 30 == len(texts)
    assert set(built) < set(texts)
    assert 10 <= sum(text in own for text in texts) < 30
    assert texts == retained_texts(case, built, 30)
    empty = replace(case, fit=Part(Material(), {}))
    assert [] == retained_texts(empty, [], 5)
    assert 5 == len(retained_texts(empty, built, 5))


def test_only_the_adapter_is_trained(world, decoder, tmp_path):
    """The base model's tensors are frozen, the adapter's are open to training."""
    from cloister_workers.trainer.debias.adapters import adapter_on

    case = case_of(MITIGATION, load_planted(decoder, tmp_path), (world.fit, world.validation), tmp_path)
    model = adapter_on(case)
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert trained
    assert all("lora_" in name for name in trained)
