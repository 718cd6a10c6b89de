# SPDX-License-Identifier: Apache-2.0
"""Pair consistency on a tiny encoder with a planted association."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cloister_workers.messages import MetricName, RefusalReason, RowReason
from cloister_workers.trainer.debias.kinds import ModelKind
from cloister_workers.trainer.debias.measures.association import Association
from cloister_workers.trainer.debias.mitigation import Layer, Refused
from cloister_workers.trainer.debias.mitigations.consistency import MITIGATION, PairConsistency, _examples
from cloister_workers.trainer.debias.shapes import Pair, Text
from cloister_workers.trainer.debias.subjects.folders import write_folder
from cloister_workers.trainer.debias.subjects.load import load_subject
from cloister_workers.trainer.debias.utilities.similarity import UTILITIES
from cloister_workers.trainer.spec import Hyperparameters, Lora
from debias_cases import make_case
from tiny_encoder import planted_lexicon, planted_part, write_encoder

ASSOCIATION: Any = Association()
STRUCTURE: Any = UTILITIES[0]
FIT, VALIDATION, TEST = range(16), range(16, 20), range(20, 30)
WANTED = Hyperparameters(n_epochs=6, batch_size=16, learning_rate=5e-3, n_evals=1)
TARGETS = Lora(rank=8, alpha=16, target_modules=("query", "value", "dense", "word_embeddings"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_encoder(tmp_path_factory.mktemp("encoder"))


def load(directory, layer=None):
    return load_subject(ModelKind.ENCODER, str(directory), layer, "/tmp", torch.device("cpu"), lambda: None)


def case_of(folder, scratch, fit=None, **settings):
    fit = fit or planted_part(FIT, range(6))
    return make_case(
        MITIGATION,
        load(folder),
        ModelKind.ENCODER,
        fit,
        planted_part(VALIDATION, range(6, 8)),
        scratch,
        hyperparameters=WANTED,
        lora=replace(TARGETS, target_modules=("query", "value", "dense")),
        settings=settings,
    )


def apart(subject, numbers) -> float:
    found = subject.embed([f"Now {side}{number}." for number in numbers for side in "mf"])
    return float((np.abs(found[::2] - found[1::2]) ** 2).sum(1).mean())


@pytest.fixture(scope="module")
def made(folder, tmp_path_factory):
    case = case_of(folder, tmp_path_factory.mktemp("scratch"))
    MITIGATION.refuse(case)
    return MITIGATION.apply(case)


def test_counterparts_come_together_and_the_rest_stays(folder, made):
    """Words that were trained on and words that were not come closer, the association falls, and neutral texts keep
    their likenesses.
    """
    before, after = load(folder), load(folder, made.files)
    assert made.layer is Layer.MERGED
    assert apart(after, FIT) < 0.3 * apart(before, FIT)
    assert apart(after, TEST) < 0.6 * apart(before, TEST)
    test = planted_part(TEST)
    items, neutral = ASSOCIATION.items(test, "gender"), STRUCTURE.items(test)
    raw = [
        ASSOCIATION.figure(items, ASSOCIATION.score(each, items), np.ones((1, len(items))))[0]
        for each in (before, after)
    ]
    assert abs(raw[1]) < 0.6 * raw[0]
    embedded = [STRUCTURE.score(each, neutral) for each in (before, after)]
    assert STRUCTURE.loss(neutral, *embedded, np.ones((1, len(neutral))))[0] < 0.1


def test_the_version_loads_in_the_plain_library(folder, made, tmp_path):
    """The merged folder gives in sentence-transformers what it gives here."""
    from sentence_transformers import SentenceTransformer

    texts = ["Now m3.", "Here is n1 then n8 there."]
    library = SentenceTransformer(str(write_folder(made.files, tmp_path)), device="cpu", local_files_only=True)
    np.testing.assert_allclose(library.encode(texts), load(folder, made.files).embed(texts), atol=1e-5)
    assert not any("adapter" in name for name in made.files)


def test_equal_seeds_give_equal_weights(folder, made, tmp_path):
    """The same case again gives the same files to the bit; another seed gives others."""
    again = MITIGATION.apply(case_of(folder, tmp_path))
    assert dict(again.files) == dict(made.files)
    other = MITIGATION.apply(replace(case_of(folder, tmp_path), seed=2))
    assert other.files["model.safetensors"] != made.files["model.safetensors"]


def test_losses_are_squared_distances_from_the_middle(folder):
    """A set's loss is the sum of squared distances from the frozen middle at unit length, a kept text's that from its
    own place times the retention; the frozen encoder itself loses nothing on the latter.
    """
    subject = load(folder)
    sets, kept = [("Now m1.", "Now f1."), ("Here m2", "Here f2", "Here n2")], ["n1 is n2", "n3"]
    examples = _examples(subject, sets, kept, 0.5)
    objective = PairConsistency(subject, 2)
    assert [len(batch) for batch in objective.micro_batches(examples)] == [2, 2]
    outcome = objective.outcome(subject.model, examples)
    expected = []
    for texts in sets:
        vectors = subject.embed(texts)
        mid = vectors.mean(0) / np.linalg.norm(vectors.mean(0))
        expected.append(((vectors - mid) ** 2).sum())
    np.testing.assert_allclose(outcome.sums.detach().numpy(), [*expected, 0, 0], atol=1e-6)
    with torch.no_grad():
        for parameter in subject.model.parameters():
            parameter.mul_(1.1)
    moved = subject.embed(kept) - np.array([example.target for example in examples[2:]])
    again = objective.outcome(subject.model, examples).sums.detach().numpy()
    np.testing.assert_allclose(again[2:], 0.5 * (moved**2).sum(1), atol=1e-6)
    assert objective.score(examples, again.tolist(), [])[MetricName.EVAL_LOSS] == pytest.approx(again.mean())
    assert objective.read([{}]) == [RowReason.UNKNOWN_KIND]


def test_users_texts_and_pairs_are_used(folder, tmp_path):
    """Pairs and swapped copies of a user's texts are sets, and the user's neutral texts are kept."""
    rows = (
        Pair("gender", "n1 m1", "n1 f1"),
        Text("Here is m2 with n5."),
        Text("n6 has n7"),
        Text("m25 is of the test"),
    )
    with_rows = MITIGATION.apply(case_of(folder, tmp_path, planted_part(FIT, range(6), rows), texts=60))
    without = MITIGATION.apply(case_of(folder, tmp_path, texts=60))
    assert with_rows.notes["sets"] - without.notes["sets"] == 2
    assert with_rows.notes["texts_kept"] - without.notes["texts_kept"] == 1


def test_what_cannot_be_drawn_together_is_refused(folder, tmp_path):
    """Short lists, no list and other models are refused before anything is trained."""
    short = planted_lexicon(range(10))
    cases = {
        RefusalReason.TOO_FEW_TERMS: replace(planted_part(), lexicons={"gender": replace(short, held_out=())}),
        RefusalReason.NO_PAIRS: replace(planted_part(), lexicons={}),
    }
    for reason, fit in cases.items():
        with pytest.raises(Refused) as caught:
            MITIGATION.refuse(case_of(folder, tmp_path, fit))
        assert caught.value.reason is reason
    with pytest.raises(Refused) as caught:
        MITIGATION.refuse(replace(case_of(folder, tmp_path), kind=ModelKind.CLASSIFIER))
    assert caught.value.reason is RefusalReason.MODEL_KIND
