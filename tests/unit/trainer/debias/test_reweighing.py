# SPDX-License-Identifier: Apache-2.0
"""Reweighing of groups and labels."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
import torch
from safetensors.torch import load

from cloister_workers.errors import TrainerError
from cloister_workers.messages import FailureCode, RefusalReason
from cloister_workers.trainer.debias.classifying import (
    CellExample,
    cell_counts,
    cell_examples,
    examples_of,
    objective_of,
)
from cloister_workers.trainer.debias.mitigation import Layer, Refused
from cloister_workers.trainer.debias.mitigations.reweighing import MITIGATION, Weighted, weights_of
from cloister_workers.trainer.debias.shapes import Labelled
from cloister_workers.trainer.loop import Parts, accumulate
from tiny_classifier import LoopOnly, adapted_subject, case_of, skewed_rows

# peft still asks transformers for an attribute under its old name
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
ROWS = skewed_rows(60)


def test_weights_by_hand():
    """w(g, y) = P(g) P(y) / P(g, y): a rare cell weighs more, a common one less."""
    counts = {("f", "no"): 6, ("f", "yes"): 2, ("m", "no"): 3, ("m", "yes"): 9}
    found = weights_of(counts)
    assert found["f", "yes"] == pytest.approx(8 * 11 / (20 * 2))
    assert found["m", "yes"] == pytest.approx(12 * 11 / (20 * 9))


@pytest.mark.parametrize("seed", range(3))
def test_weighed_groups_and_labels_are_independent(seed):
    """Under the weights, every label has the same share in every group, and the weights add up to the rows."""
    random = np.random.default_rng(seed)
    counts = {(group, label): int(random.integers(1, 50)) for group in "abc" for label in "xyz"}
    weighed = {cell: weight * counts[cell] for cell, weight in weights_of(counts).items()}
    total = sum(counts.values())
    assert sum(weighed.values()) == pytest.approx(total)
    for label in "xyz":
        share = sum(counts[group, label] for group in "abc") / total
        for group in "abc":
            of_group = sum(weighed[group, other] for other in "xyz")
            assert weighed[group, label] / of_group == pytest.approx(share)


def test_a_step_is_the_weighed_mean_of_its_losses(bert_dir, tmp_path):
    """The loop's loss of a step is mean(weight * cross-entropy), and its gradient is that of it."""
    case = case_of(adapted_subject(bert_dir), tmp_path, ROWS)
    plain, model = objective_of(case), case.subject.model
    counts = cell_counts(ROWS, ("gender",))
    weights = weights_of(counts)
    examples = cell_examples(plain, ROWS, ("gender",), tuple(weights))
    batch = [examples[number] for number in (0, 1, 7, 19, 39)]
    model.eval()
    loss = accumulate(model, Weighted(plain, tuple(weights.values())), batch, lambda: None)
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    own = torch.tensor([weights["female" if i % 2 == 0 else "male", ROWS[i].label] for i in (0, 1, 7, 19, 39)])
    expected = (own * plain.outcome(model, batch).sums).mean()
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=1e-5)
    assert len(set(own.tolist())) > 1
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, dict(model.named_parameters())[name].grad, rtol=1e-4, atol=1e-6)


def test_even_rows_train_as_without_weights(bert_dir, tmp_path):
    """Where group and label are independent already, all weights are 1 and the losses are those of plain training."""
    rows = skewed_rows(60, skew=0.5)
    weighed, plainly = LoopOnly(), LoopOnly()
    MITIGATION.apply(case_of(adapted_subject(bert_dir), tmp_path, rows, training=weighed))
    case = case_of(adapted_subject(bert_dir), tmp_path, rows, training=plainly)
    objective = objective_of(case)
    case.training(case.subject.model, objective, Parts(examples_of(objective, rows)), case.hyperparameters, case.seed)
    assert set(weights_of(cell_counts(rows, ("gender",))).values()) == {1.0}
    assert weighed.losses == plainly.losses


def test_the_same_job_leaves_the_same_files(bert_dir, tmp_path):
    """Two runs agree to the last bit; the adapter's weights are others than before, and the notes say what was done."""
    first = MITIGATION.apply(case_of(adapted_subject(bert_dir), tmp_path, ROWS))
    second = MITIGATION.apply(case_of(adapted_subject(bert_dir), tmp_path, ROWS))
    assert first == second
    assert first.layer is Layer.ADAPTER
    assert first.steps == 16
    assert first.notes["rows"] == 60
    assert first.notes["heaviest"] > 1 > first.notes["lightest"]
    assert json.loads(first.files["adapter_config.json"])["base_model_name_or_path"] == "tiny"
    saved = load(first.files["adapter_model.safetensors"])
    assert any(name.endswith("lora_B.weight") and bool(tensor.any()) for name, tensor in saved.items())
    assert list(tmp_path.iterdir()) == []


def test_rows_weigh_by_the_product_of_several_axes(bert_dir, tmp_path):
    """With two axes, cells are the products of both with the label."""
    random = np.random.default_rng(0)
    rows = tuple(
        Labelled(row.text, row.label, {**row.groups, "age": ("old", "young")[random.integers(2)]}) for row in ROWS
    )
    training = LoopOnly()
    case = case_of(adapted_subject(bert_dir), tmp_path, rows, training=training, axes=("gender", "gender*age"))
    MITIGATION.apply(case)
    expected = Counter((row.groups["gender"], row.groups["age"], row.label) for row in rows)
    assert training.parts is not None
    found = Counter(example.cell for example in training.parts.training if isinstance(example, CellExample))
    assert sorted(found.values()) == sorted(expected.values())


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([Labelled("alpha", "no"), *ROWS], RefusalReason.NO_GROUPS),
        ([row for row in ROWS if row.groups["gender"] == "male"], RefusalReason.NO_GROUPS),
        ([], RefusalReason.NO_GROUPS),
        (
            [row for row in ROWS if (row.groups["gender"], row.label) != ("female", "yes")],
            RefusalReason.TOO_FEW_ROWS,
        ),
    ],
    ids=["a row without a group", "one group", "no rows", "a group that lacks a label"],
)
def test_unfit_material_is_refused(rows, reason, tmp_path):
    """Without groups, or without any row of a cell, nothing is trained."""
    with pytest.raises(Refused) as caught:
        MITIGATION.refuse(case_of(None, tmp_path, rows))
    assert caught.value.reason is reason
    assert caught.value.code is FailureCode.MITIGATION_REFUSED


def test_a_label_that_the_model_lacks_stops_the_job(bert_dir, tmp_path):
    """A row of an unknown class cannot be trained on, and the error counts such rows without showing them."""
    rows = [*ROWS, Labelled("alpha bravo", "zzz", {"gender": "male"}), Labelled("alpha", "zzz", {"gender": "female"})]
    with pytest.raises(TrainerError, match="2 rows") as caught:
        MITIGATION.apply(case_of(adapted_subject(bert_dir), tmp_path, rows))
    assert caught.value.code is FailureCode.ROWS_INVALID
    assert "zzz" not in str(caught.value)
