# SPDX-License-Identifier: Apache-2.0
"""What erasure is fitted on, what it refuses, and what it chooses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cloister_workers.messages import RefusalReason
from cloister_workers.trainer.debias import counterparts
from cloister_workers.trainer.debias.kinds import ModelKind
from cloister_workers.trainer.debias.link import cramers_v
from cloister_workers.trainer.debias.measures.association import Association
from cloister_workers.trainer.debias.mitigation import Layer, Refused
from cloister_workers.trainer.debias.mitigations.erasure import MITIGATION
from cloister_workers.trainer.debias.shapes import Labelled, Pair
from cloister_workers.trainer.debias.subjects.load import load_subject, weights_digest
from cloister_workers.trainer.export import export_files
from cloister_workers.trainer.model import load_classifier
from debias_cases import make_case
from tiny_encoder import planted_lexicon, planted_part, write_encoder

ASSOCIATION: Any = Association()
FIT, VALIDATION, TEST = range(12), range(12, 20), range(20, 30)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_encoder(tmp_path_factory.mktemp("encoder"))


def load(directory, layer=None, kind=ModelKind.ENCODER):
    return load_subject(kind, str(directory), layer, "/tmp", CPU, lambda: None)


def encoder_case(folder, scratch, *, fit=None, validation=None, **settings):
    fit = fit or planted_part(FIT, range(6))
    validation = validation or planted_part(VALIDATION, range(6, 12))
    return make_case(MITIGATION, load(folder), ModelKind.ENCODER, fit, validation, scratch, **settings)


def rows(skew: float, count: int = 400, seed: int = 0) -> tuple[Labelled, ...]:
    """Labelled rows in which the label follows the group in a share `skew`, and a word of the row always."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(count):
        group = "male" if rng.random() < 0.5 else "female"
        label = "yes" if (rng.random() < skew) == (group == "male") else "no"
        word = f"{group[0]}{rng.integers(30)}"
        text = f"{word} is n{rng.integers(30) + 30 * (label == 'yes')} now n{number % 60}"
        found.append(Labelled(text, label, {"gender": group}))
    return tuple(found)


def raw_association(subject) -> float:
    items = ASSOCIATION.items(planted_part(TEST), "gender")
    return float(ASSOCIATION.figure(items, ASSOCIATION.score(subject, items), np.ones((1, len(items))))[0])


def refused(case) -> RefusalReason:
    with pytest.raises(Refused) as caught:
        MITIGATION.refuse(case)
    with pytest.raises(Refused) as again:
        MITIGATION.apply(case)
    assert caught.value.reason is again.value.reason
    return caught.value.reason


# ---------------------------------------------------------------- erasers at work
@pytest.mark.parametrize("eraser", ["auto", "orthogonal", "mean_difference", "pca"])
def test_a_planted_association_falls_on_words_that_were_not_fitted(folder, tmp_path, eraser):
    """Each eraser, folded and reloaded, takes 80 % or more of the association of words that it has not seen."""
    case = encoder_case(folder, tmp_path, eraser=eraser)
    before, digest = raw_association(case.subject), weights_digest(case.subject)
    MITIGATION.refuse(case)
    made = MITIGATION.apply(case)
    after = load(folder, made.files)
    assert made.layer is Layer.ERASURE
    assert before > 0.05
    assert abs(raw_association(after)) <= 0.2 * before
    assert weights_digest(after) != digest
    assert made.notes["texts"] > 0
    assert made.notes["directions"] >= 1


def test_leace_is_fitted_where_there_are_enough_rows(folder, tmp_path):
    """With 20 rows a dimension LEACE runs and erases; with fewer it is refused, and auto goes without it."""
    labelled = rows(0.5, count=700)
    fit = planted_part(rows=labelled)
    made = MITIGATION.apply(encoder_case(folder, tmp_path, fit=fit, eraser="leace", data="rows"))
    assert made.notes["eraser_leace"] == 1
    assert abs(raw_association(load(folder, made.files))) < raw_association(load(folder))
    few = planted_part(rows=labelled[:500])
    assert refused(encoder_case(folder, tmp_path, fit=few, eraser="leace", data="rows")) is RefusalReason.TOO_FEW_ROWS
    auto = MITIGATION.apply(encoder_case(folder, tmp_path, fit=few, data="rows"))
    assert not any(name.startswith("eraser_leace") for name in auto.notes)


def test_a_row_of_two_axes_counts_once(folder, tmp_path):
    """400 rows that state two groups each are 400 texts for LEACE, not the 800 that it asks for here."""
    labelled = [
        replace(row, groups={**row.groups, "age": ("old", "young")[place % 2]})
        for place, row in enumerate(rows(0.5, count=400))
    ]
    fit = planted_part(rows=tuple(labelled))
    case = replace(encoder_case(folder, tmp_path, fit=fit, eraser="leace", data="rows"), axes=("gender", "age"))
    assert refused(case) is RefusalReason.TOO_FEW_ROWS
    auto = MITIGATION.apply(replace(case, options={"eraser": "auto", "data": "rows"}))
    assert auto.notes["texts"] == 800
    assert not any(name.startswith("eraser_leace") for name in auto.notes)


def test_leace_asks_for_as_many_texts_as_it_needs(folder, tmp_path):
    """On word lists alone LEACE is refused where templates and words do not give 20 texts a dimension."""
    assert refused(encoder_case(folder, tmp_path, eraser="leace")) is RefusalReason.TOO_FEW_ROWS


def test_users_pairs_are_fitted_on_too(folder, tmp_path):
    """Rows of kind pair count as counterparts of their axis, and those of another axis do not."""
    own = tuple(Pair("gender", f"now m{n} there", f"now f{n} there") for n in range(20))
    other = (Pair("age", "now n1", "now n2"),)
    with_pairs = MITIGATION.apply(encoder_case(folder, tmp_path, fit=planted_part(FIT, range(6), (*own, *other))))
    without = MITIGATION.apply(encoder_case(folder, tmp_path))
    assert with_pairs.notes["texts"] - without.notes["texts"] == 40


def test_a_classifier_is_erased_on_swapped_copies_of_its_skewed_texts(folder, tmp_path):
    """Asked to fit on pairs, erasure accepts rows whose label follows the group, and brings logits of counterparts
    closer together.
    """
    subject, skewed = classifier(folder, tmp_path), rows(0.92)
    fit = planted_part(range(30), range(6), skewed)
    case = make_case(
        MITIGATION,
        subject,
        ModelKind.CLASSIFIER,
        fit,
        planted_part(range(30), range(6), rows(0.9, 100, 1)),
        tmp_path,
        data="pairs",
    )
    made = MITIGATION.apply(case)
    texts = [f"{side}{n} is n{n}" for n in range(20) for side in "mf"]

    def apart(subject) -> float:
        logits = subject.logits(texts)
        return float(np.abs(logits[::2] - logits[1::2]).mean())

    assert apart(load(folder, made.files, ModelKind.CLASSIFIER)) < 0.5 * apart(classifier(folder, tmp_path))


def classifier(folder, tmp_path):
    """A classifier whose random head reads the planted direction along with others."""
    torch.manual_seed(2)
    model: Any = load_classifier(str(folder), ("no", "yes"), 0, CPU).model
    with torch.no_grad():
        model.classifier.weight.mul_(30)
    tokenizer = load(folder).tokenizer
    return load(folder, export_files(model, tokenizer, "base", str(tmp_path)), ModelKind.CLASSIFIER)


# ---------------------------------------------------------------- refusals
@pytest.mark.parametrize("data", ["auto", "rows"])
@pytest.mark.parametrize("kind", [ModelKind.ENCODER, ModelKind.CLASSIFIER])
def test_rows_whose_label_follows_the_group_are_refused(folder, tmp_path, kind, data):
    """At a skew of 92 to 8 erasing the group would erase the task: refused, for encoders and classifiers alike."""
    subject = load(folder) if kind is ModelKind.ENCODER else classifier(folder, tmp_path)
    fit = planted_part(rows=rows(0.92))
    case = make_case(MITIGATION, subject, kind, fit, planted_part(), tmp_path, data=data)
    assert refused(case) is RefusalReason.PROTECTED_LABEL_LINK


def test_a_few_skewed_rows_are_refused_too(folder, tmp_path):
    """Where rows are too few for a sure link, the link in the rows themselves refuses them."""
    fit = planted_part(rows=rows(0.8, count=24, seed=3))
    assert refused(encoder_case(folder, tmp_path, fit=fit, data="rows")) is RefusalReason.PROTECTED_LABEL_LINK


def test_balanced_rows_are_accepted(folder, tmp_path):
    """Rows in which group and label are independent are fitted on."""
    case = encoder_case(folder, tmp_path, fit=planted_part(rows=rows(0.5)))
    MITIGATION.refuse(case)
    assert MITIGATION.apply(case).notes["texts"] == 400


def test_rows_that_do_not_tell_groups_are_refused(folder, tmp_path):
    """Rows asked for and of one group, or of none, or with a group that has a handful of rows, are refused."""
    balanced = rows(0.5)
    one = tuple(row for row in balanced if row.groups["gender"] == "male")
    none = tuple(replace(row, groups={}) for row in balanced)
    rare = (*one, *(row for row in balanced if row.groups["gender"] == "female"))[: len(one) + 9]
    assert refused(encoder_case(folder, tmp_path, fit=planted_part(rows=one), data="rows")) is RefusalReason.NO_GROUPS
    assert refused(encoder_case(folder, tmp_path, fit=planted_part(rows=none), data="rows")) is RefusalReason.NO_GROUPS
    assert (
        refused(encoder_case(folder, tmp_path, fit=planted_part(rows=rare), data="rows")) is RefusalReason.TOO_FEW_ROWS
    )


def test_short_word_lists_are_refused(folder, tmp_path):
    """Lists of 24 words a group, those of other parts counted, are refused; so is an axis without any list or pair."""
    lexicon = replace(planted_lexicon(range(10)), held_out=planted_lexicon(range(14)).swaps)
    part = replace(planted_part(), lexicons={"gender": lexicon})
    assert refused(encoder_case(folder, tmp_path, fit=part)) is RefusalReason.TOO_FEW_TERMS
    bare = replace(planted_part(), lexicons={})
    assert refused(encoder_case(folder, tmp_path, fit=bare)) is RefusalReason.NO_PAIRS


def test_a_language_model_is_refused(llama_dir, tmp_path):
    """A model without a linear last step of its own kind is refused by kind."""
    case = make_case(
        MITIGATION, load(llama_dir, kind=ModelKind.CAUSAL), ModelKind.CAUSAL, planted_part(), planted_part(), tmp_path
    )
    assert refused(case) is RefusalReason.MODEL_KIND


def test_errors_hold_no_text_of_the_rows(folder, tmp_path):
    """What a refusal says has numbers and positions in it, no word, group or label of the dataset."""
    case = encoder_case(folder, tmp_path, fit=planted_part(rows=rows(0.92)))
    with pytest.raises(Refused) as caught:
        MITIGATION.refuse(case)
    assert not any(word in str(caught.value) for word in ("yes", "female", "gender", "n1"))


# ---------------------------------------------------------------- the link of group and label
def test_cramers_v_equals_scipy():
    """V of tables of several sizes is that of scipy without correction, and lies inside its interval."""
    from scipy.stats.contingency import association

    rng = np.random.default_rng(0)
    for r, c in ((2, 2), (2, 4), (3, 5)):
        first, second = rng.integers(0, r, 300), rng.integers(0, c, 300)
        second = np.where(rng.random(300) < 0.4, first % c, second)
        table = np.array([[np.sum((first == a) & (second == b)) for b in range(c)] for a in range(r)])
        link = cramers_v([str(a) for a in first], [str(b) for b in second])
        assert link.value == pytest.approx(association(table, method="cramer"), abs=1e-12)
        assert 0 < link.low < link.value < link.high


def test_the_interval_of_v_holds_what_it_promises():
    """Of 200 samples from a population with V = 0.4, the interval of 95 % misses 0.4 in 2 to 8 of a hundred."""
    rng = np.random.default_rng(1)
    missed = 0
    for _ in range(200):
        first = rng.random(200) < 0.5
        second = np.where(rng.random(200) < 0.7, first, ~first)
        link = cramers_v([str(a) for a in first], [str(b) for b in second])
        missed += not link.low <= 0.4 <= link.high
    assert 4 <= missed <= 16


def test_independent_columns_and_constant_ones_have_no_link():
    """A crossed design has V 0, and a column of one name has no link to anything."""
    crossed = cramers_v(["a", "a", "b", "b"] * 25, ["x", "y"] * 50)
    assert (crossed.value, crossed.low) == (0, 0)
    assert cramers_v(["a"] * 9, ["x", "y", "z"] * 3).high == 0


# ---------------------------------------------------------------- counterparts
def test_counterparts_of_word_lists_differ_in_the_group_alone():
    """Each set has one text a group, made of one template, and sets get templates in turn up to the wanted number."""
    found = counterparts.from_words({"gender": planted_lexicon(FIT, range(6))}, 96)
    sets: dict[int, list] = {}
    for entry in found:
        sets.setdefault(entry.set, []).append(entry)
    assert 72 <= len(found) <= 96
    for first, second in sets.values():
        assert (first.group, second.group, first.source) == ("male", "female", second.source)
        assert first.text.casefold().replace("m", "f") == second.text.casefold().replace("m", "f")
    assert {entry.source for entry in found} == {"word", "person"}
    assert all(f"m{n}" not in entry.text.split() for n in TEST for entry in found)


def test_joined_lists_share_no_set():
    """Sets of several sources get numbers of their own; rows without counterparts stay without."""
    lists = [
        counterparts.from_pairs([Pair("gender", "a", "b"), Pair("gender", "c", "d")], ("gender",)),
        counterparts.from_swaps(["Here is m1.", "n1"], {"gender": planted_lexicon()}, 0),
        counterparts.from_rows([Labelled("x", "y", {"gender": "male"})], ("gender",)),
    ]
    found = counterparts.joined(lists)
    assert [entry.set for entry in found] == [0, 0, 1, 1, 2, 2, counterparts.NO_SET]
    assert [entry.text for entry in found[4:6]] == ["Here is m1.", "Here is f1."]
