# SPDX-License-Identifier: Apache-2.0
"""Group DRO: the robust loss, its memory, and what it leaves."""

from __future__ import annotations

import contextlib
import math
import os
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from cloister_workers.errors import Paused, TrainerError
from cloister_workers.messages import FailureCode, RefusalReason
from cloister_workers.trainer.checkpoint import LoopState, fingerprint, load_checkpoint, save_checkpoint
from cloister_workers.trainer.debias.classifying import cell_counts, cell_examples, objective_of
from cloister_workers.trainer.debias.mitigation import Layer, Refused
from cloister_workers.trainer.debias.mitigations.group_dro import MITIGATION, GroupDro, balanced, lowest_accuracy
from cloister_workers.trainer.evaluate import evaluate
from cloister_workers.trainer.loop import Parts, Trainee, accumulate, train
from cloister_workers.trainer.objectives import Stateful
from cloister_workers.trainer.optimiser import Optimiser
from cloister_workers.trainer.spec import Hyperparameters, Method, TrainingSpec
from tiny_classifier import LABELS, LoopOnly, adapted_subject, case_of, skewed_rows

# peft still asks transformers for an attribute under its old name
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
ROWS, HELD_OUT = skewed_rows(60), skewed_rows(96)[60:]
WANTED = Hyperparameters(n_epochs=2, batch_size=8, micro_batch_size=8, learning_rate=0.01, n_evals=3)


def robust(model_dir, tmp_path, step=0.5, adjustment=0.0):
    """Model, objective and examples of a job with two groups and two labels."""
    case = case_of(adapted_subject(model_dir), tmp_path, ROWS)
    counts = cell_counts(ROWS, ("gender",))
    plain = objective_of(case)
    objective = GroupDro(plain, tuple(counts.values()), step, adjustment, case.subject.model)
    return case.subject.model, plain, objective, cell_examples(plain, ROWS, ("gender",), tuple(counts)), counts


def test_q_and_the_loss_follow_the_algorithm(bert_dir, tmp_path):
    """Over some steps, q and the step's loss are those of the paper's lines written in plain numbers."""
    model, plain, objective, examples, counts = robust(bert_dir, tmp_path, step=0.7, adjustment=1.5)
    model.eval()
    q = [1 / len(counts)] * len(counts)
    for start in (0, 9, 22):
        batch = examples[start : start + 9 if start else 2]  # the first step lacks two of the cells
        with torch.no_grad():
            losses = plain.outcome(model, batch).sums.tolist()
        means = []
        for cell in range(len(counts)):
            mine = [loss for loss, example in zip(losses, batch, strict=True) if example.cell == cell]
            means.append(sum(mine) / len(mine) if mine else 0.0)
        sizes = list(counts.values())
        q = [
            old * math.exp(0.7 * (mean + 1.5 / math.sqrt(size)))
            for old, mean, size in zip(q, means, sizes, strict=True)
        ]
        q = [value / sum(q) for value in q]
        loss = accumulate(model, objective, batch, lambda: None)
        np.testing.assert_allclose(objective.q.numpy(), q, rtol=1e-6)
        assert loss == pytest.approx(sum(share * mean for share, mean in zip(q, means, strict=True)), rel=1e-5)
    assert max(q) - min(q) > 0.01


def test_gradients_are_those_of_the_weighed_means(bert_dir, tmp_path):
    """q is a constant to the gradient: it is that of the sum of q_g times the mean loss of g."""
    model, plain, objective, examples, _ = robust(bert_dir, tmp_path)
    model.eval()
    batch = examples[:12]
    accumulate(model, objective, batch, lambda: None)
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    losses = plain.outcome(model, batch).sums
    cells = torch.tensor([example.cell for example in batch])
    means = torch.stack([losses[cells == cell].mean() for cell in cells.unique()])
    (objective.q[cells.unique()].float() * means).sum().backward()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, dict(model.named_parameters())[name].grad, rtol=1e-4, atol=1e-6)


def test_a_step_is_one_forward_pass_in_training_alone(bert_dir, tmp_path):
    """A batch is never divided before its cells are weighed; evaluations go in micro batches and see plain losses."""
    model, plain, objective, examples, _ = robust(bert_dir, tmp_path)
    assert [len(micro) for micro in objective.micro_batches(examples[:20])] == [20]
    with torch.no_grad():
        sizes = [len(micro) for micro in objective.micro_batches(examples[:20])]
        assert (8, 20) == (max(sizes), sum(sizes))
        model.eval()
        assert torch.equal(objective.outcome(model, examples[:4]).sums, plain.outcome(model, examples[:4]).sums)
    assert objective.q.tolist() == [0.25] * 4


def test_balanced_cells_are_as_large_as_the_largest(bert_dir, tmp_path):
    """Every row of the largest cell comes once, rows of the others as often as is needed, as evenly as can be."""
    examples = robust(bert_dir, tmp_path)[3]
    taken = balanced(examples)
    sizes = Counter(example.cell for example in taken)
    largest = max(Counter(example.cell for example in examples).values())
    assert set(sizes.values()) == {largest}
    times = Counter(example.digest for example in taken)
    assert set(times) == {example.digest for example in examples}
    for cell in sizes:
        mine = [times[example.digest] for example in examples if example.cell == cell]
        assert max(mine) - min(mine) <= 1


@dataclass
class Hooks:
    """Takes a checkpoint after a step and stops there."""

    optimiser: Optimiser
    objective: GroupDro
    mark: str
    pause_at: int = 0
    losses: list[float] = field(default_factory=list)
    kept: list[int] = field(default_factory=list)

    def poll(self, step):
        """Never cancels."""

    def pause_wanted(self):
        return len(self.losses) == self.pause_at

    def progress(self, message):
        self.losses += message.losses

    def evaluated(self, *_):
        """Not looked at."""

    def checkpoint(self, state, metrics):
        self.kept.append(save_checkpoint(self.optimiser, state, self.mark, self.objective))


def start(model_dir, tmp_path, pause_at=0, checkpoint=None):
    """Train from the beginning or from a checkpoint; gives model, objective, hooks and whether it paused."""
    model, plain, objective, examples, counts = robust(model_dir, tmp_path)
    spec = TrainingSpec(model="", method=Method.CLASSIFICATION, seed=9, hyperparameters=WANTED)
    held = cell_examples(plain, HELD_OUT, ("gender",), tuple(counts))
    optimiser, mark = Optimiser(model, 0.0, 1.0), fingerprint(spec, examples)
    hooks = Hooks(optimiser, objective, mark, pause_at)
    torch.manual_seed(9)
    state = LoopState()
    if checkpoint is not None:
        torch.manual_seed(1234)  # what is left over must not matter
        with os.fdopen(checkpoint, "rb") as stream:
            state = load_checkpoint(stream, optimiser, mark, objective)
    ticks = iter(range(10_000))
    with contextlib.suppress(Paused):
        train(
            spec, Trainee(model, objective, optimiser), Parts(examples, held), hooks, lambda: float(next(ticks)), state
        )
    return model, objective, hooks


@pytest.mark.parametrize("pause_at", [1, 6, 13])
def test_a_resumed_run_equals_one_that_never_stopped(bert_dir, tmp_path, pause_at):
    """Losses, weights, q and the best weights so far are equal bit for bit, wherever the run was stopped."""
    assert isinstance(robust(bert_dir, tmp_path)[2], Stateful)
    model, objective, hooks = start(bert_dir, tmp_path)
    _, _, first = start(bert_dir, tmp_path, pause_at)
    assert len(first.losses) == pause_at
    again, resumed, second = start(bert_dir, tmp_path, checkpoint=first.kept[0])
    assert first.losses + second.losses == hooks.losses
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
    mine, theirs = objective.state(), resumed.state()
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    assert "best/" in " ".join(mine)


def test_a_checkpoint_without_memory_is_refused(bert_dir, tmp_path):
    """A checkpoint that lacks q cannot be resumed."""
    model, _, objective, _, _ = robust(bert_dir, tmp_path)
    optimiser = Optimiser(model, 0.0, 1.0)
    descriptor = save_checkpoint(optimiser, LoopState(step=2), "mark")
    with os.fdopen(descriptor, "rb") as stream, pytest.raises(TrainerError) as caught:
        load_checkpoint(stream, optimiser, "mark", objective)
    assert caught.value.code is FailureCode.CHECKPOINT_INVALID


def test_the_best_weights_on_the_worst_cell_are_kept(bert_dir, tmp_path):
    """Weights come back from the evaluation whose lowest accuracy over cells was highest."""
    model, plain, objective, examples, _ = robust(bert_dir, tmp_path)
    head = next(
        p for name, p in model.named_parameters() if p.requires_grad and name.endswith("modules_to_save.default.bias")
    )
    held = examples[:24]

    def measured(bias):
        with torch.no_grad():
            head.copy_(torch.tensor(bias))
        evaluate(model, objective, held, 8, lambda: None)
        with torch.no_grad():
            model.eval()
            said = plain.outcome(model, held).predicted[:, 0].long().tolist()
        return lowest_accuracy(held, said, LABELS)

    model.train()
    lowest = {bias: measured(bias) for bias in [(-50.0, 50.0), (0.0, 0.0), (50.0, -50.0)]}
    best = max(lowest.values())
    objective.restore_best()
    assert objective.worst == best
    assert lowest[tuple(head.tolist())] == best


def test_lowest_accuracy_is_that_of_the_worst_cell(bert_dir, tmp_path):
    """Three of four right in one cell and one of two in another: one half."""
    examples = robust(bert_dir, tmp_path)[3]
    first = [example for example in examples if example.cell == 0][:4]
    second = [example for example in examples if example.cell == 1][:2]
    right = [LABELS.index(example.label) for example in [*first, *second]]
    said = [1 - right[0], *right[1:5], 1 - right[5]]
    assert lowest_accuracy([*first, *second], said, LABELS) == 0.5


def test_the_job_leaves_an_adapter_and_says_what_was_done(bert_dir, tmp_path):
    """Balanced sampling by default, the worst validation accuracy in the notes, and the same files each time."""
    made = [
        MITIGATION.apply(case_of(adapted_subject(bert_dir), tmp_path, ROWS, HELD_OUT, hyperparameters=WANTED))
        for _ in range(2)
    ]
    assert made[0] == made[1]
    assert made[0].layer is Layer.ADAPTER
    assert made[0].notes["examples_an_epoch"] == 4 * max(cell_counts(ROWS, ("gender",)).values())
    assert 0 <= made[0].notes["worst_validation_accuracy"] <= 1
    assert "adapter_model.safetensors" in made[0].files


def test_natural_sampling_takes_rows_as_they_are(bert_dir, tmp_path):
    """`sampling: natural` trains on every row once an epoch."""
    training = LoopOnly()
    MITIGATION.apply(
        case_of(adapted_subject(bert_dir), tmp_path, ROWS, training=training, options={"sampling": "natural"})
    )
    assert training.parts is not None
    assert len(training.parts.training) == len(ROWS)


def test_without_groups_it_is_refused(tmp_path):
    """One group has no worst one."""
    with pytest.raises(Refused) as caught:
        MITIGATION.refuse(case_of(None, tmp_path, [row for row in ROWS if row.groups["gender"] == "male"]))
    assert caught.value.reason is RefusalReason.NO_GROUPS
