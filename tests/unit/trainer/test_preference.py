# SPDX-License-Identifier: Apache-2.0
"""Direct preference optimisation: the loss is TRL's, the reference is fixed before training."""

from __future__ import annotations

import importlib
import math
from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from cloister_workers.messages import MetricName, Metrics, RowReason
from cloister_workers.trainer import attention
from cloister_workers.trainer.adapt import attach_lora
from cloister_workers.trainer.checkpoint import LoopState
from cloister_workers.trainer.loop import Parts, Trainee, accumulate, train
from cloister_workers.trainer.model import load_causal, load_tokenizer
from cloister_workers.trainer.objectives.chat import ChatReader
from cloister_workers.trainer.objectives.preference import Preference, Reference
from cloister_workers.trainer.objectives.supervised import Supervised
from cloister_workers.trainer.optimiser import Optimiser
from cloister_workers.trainer.spec import Hyperparameters, Lora, Method, TrainingSpec

CPU = torch.device("cpu")
ROWS = [
    {"prompt": "alpha bravo", "chosen": " charlie delta", "rejected": " echo"},
    {"prompt": "golf", "chosen": " hotel", "rejected": " india juliett alpha"},
    {"prompt": "echo echo delta", "chosen": " alpha", "rejected": " bravo"},
]
BETA = 0.3


@pytest.fixture
def objective(llama_dir):
    reader = ChatReader(load_tokenizer(str(llama_dir), chat=True), 64)
    return Preference(Supervised(reader, 64, CPU), beta=BETA)


def trl_trainer(policy, reference, tokenizer, directory, **settings):
    """TRL's own trainer over ROWS: its tokens, its masks, its loss."""
    datasets, trl = importlib.import_module("datasets"), importlib.import_module("trl")
    config = trl.DPOConfig(
        output_dir=str(directory),
        report_to=[],
        use_cpu=True,
        bf16=False,
        max_length=64,
        activation_checkpointing=False,
        **settings,
    )
    return trl.DPOTrainer(
        model=policy,
        ref_model=reference,
        args=config,
        train_dataset=datasets.Dataset.from_list(ROWS),
        processing_class=tokenizer,
    )


def by_trl(trainer, policy, rows):
    batch = trainer.data_collator([trainer.train_dataset[index] for index in rows])
    return trainer.compute_loss(policy, batch)


def gradients(model):
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


# datasets' thread of progress bars and transformers' renamed settings are not ours to mend
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")
def test_the_loss_is_trls(objective, base, moved, tmp_path):
    """Losses of single pairs and of a batch, and the gradients of the batch, are those of TRL's DPOTrainer."""
    known = objective.scored(base, examples := objective.read(ROWS), lambda: None)
    ours = known.outcome(moved, examples).sums
    step = accumulate(moved, known, examples, lambda: None)
    slopes = gradients(moved)

    base.set_attn_implementation("sdpa")
    moved.set_attn_implementation("sdpa")
    trainer = trl_trainer(moved, base, objective.likelihood.reader.tokenizer, tmp_path, beta=BETA)
    moved.eval()
    for index in range(len(ROWS)):
        assert float(by_trl(trainer, moved, [index]).detach()) == pytest.approx(float(ours[index].detach()), abs=1e-5)
    whole = by_trl(trainer, moved, range(len(ROWS)))
    whole.backward()
    theirs = gradients(moved)
    assert float(whole.detach()) == pytest.approx(step, abs=1e-5)
    assert theirs.keys() == slopes.keys()
    assert max(float((theirs[name] - slopes[name]).abs().max()) for name in theirs) < 1e-5
    assert 0.05 < float((ours.detach() - math.log(2)).abs().max())  # not just the value that every model starts from


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")
def test_the_supervised_term_is_trls(objective, base, moved, tmp_path):
    """With an SFT term the loss of a pair is TRL's mixture of sigmoid and sft with these weights."""
    known = replace(objective, sft=0.25).scored(base, examples := objective.read(ROWS), lambda: None)
    ours = known.outcome(moved, examples).sums
    base.set_attn_implementation("sdpa")
    moved.set_attn_implementation("sdpa")
    settings = {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.25]}
    trainer = trl_trainer(moved, base, objective.likelihood.reader.tokenizer, tmp_path, beta=BETA, **settings)
    moved.eval()
    for index in range(len(ROWS)):
        assert float(by_trl(trainer, moved, [index]).detach()) == pytest.approx(float(ours[index].detach()), abs=1e-5)


def test_the_loss_is_the_papers(objective, base, moved):
    """The loss equals the paper's formula on log-probabilities summed by hand from whole logits."""
    examples = objective.read(ROWS)
    ours = objective.scored(base, examples, lambda: None).outcome(moved, examples).sums
    margins = []
    for model in (moved, base):
        model.set_attn_implementation("eager")
        sides = [[by_hand(model, e), by_hand(model, e.other)] for e in examples]
        model.set_attn_implementation(attention.NAME)
        margins.append(torch.tensor(sides)[:, 0] - torch.tensor(sides)[:, 1])
    expected = -functional.logsigmoid(BETA * (margins[0] - margins[1]))
    assert torch.allclose(expected, ours, atol=1e-5)


def by_hand(model, example):
    ids = torch.tensor([example.tokens.tolist()])
    with torch.no_grad():
        logs = model(ids).logits[0].log_softmax(-1)
    return sum(float(logs[i - 1, ids[0, i]]) for i in range(1, ids.shape[1]) if example.learned[i])


def test_a_doubtful_pair_stops_where_it_should(objective, base):
    """With certainty c the loss is least where beta times the gain in margin is the logit of c."""
    example = objective.read(ROWS[:1])[0]
    margin = torch.zeros(1, requires_grad=True)
    for certainty in (0.5, 0.7, 0.9):
        goal = math.log(certainty / (1 - certainty)) / BETA
        known = replace(objective, reference={example.digest: Reference(-goal, 0.0, certainty)})
        at_goal = replace(known, likelihood=Fixed(objective.likelihood, margin))
        margin.grad = None
        at_goal.outcome(base, [example]).sums.sum().backward()
        assert margin.grad is not None
        assert float(margin.grad) == pytest.approx(0.0, abs=1e-6)


class Fixed:
    """A likelihood with a margin of our choice."""

    def __init__(self, plain, margin):
        self.plain, self.margin = plain, margin

    def weight(self, example):
        return self.plain.weight(example)

    def outcome(self, model, sequences):
        from cloister_workers.trainer.example import Outcome

        return Outcome(torch.cat([-self.margin, torch.zeros(1)]), torch.zeros(2))


def test_certainty_of_one_half_pulls_back(objective, base, moved):
    """A pair that nobody prefers has its least loss, log 2, on the reference itself."""
    examples = objective.read(ROWS)
    known = objective.scored(base, examples, lambda: None)
    even = {digest: replace(entry, certainty=0.5) for digest, entry in known.reference.items()}
    indifferent = replace(known, reference=even)
    assert torch.allclose(torch.full((3,), math.log(2)), indifferent.outcome(base, examples).sums, atol=1e-6)
    assert bool((indifferent.outcome(moved, examples).sums > math.log(2)).all())


def test_training_prefers_and_keeps_its_reference(objective, llama_dir):
    """Training through the loop raises the share of preferred pairs; the reference does not move with the model."""
    torch.manual_seed(1)
    lora = Lora(rank=4, target_modules=("all-linear",))
    model = attach_lora(load_causal(str(llama_dir), CPU), lora)
    examples = tuple(objective.read(ROWS))
    known = objective.scored(model, examples, lambda: None)
    start = dict(known.reference)
    assert all(-100 < entry.chosen < 0 for entry in start.values())
    assert accumulate(model, known, examples, lambda: None) == pytest.approx(math.log(2), abs=1e-5)
    model.zero_grad()
    hyperparameters = Hyperparameters(n_epochs=12, batch_size=3, learning_rate=1e-2, n_evals=4)
    spec = TrainingSpec(model="", method=Method.SUPERVISED, hyperparameters=hyperparameters)
    told: list[Metrics] = []
    state = train(
        spec,
        Trainee(model, known, Optimiser(model, 0.0, 1.0)),
        Parts(examples, validation=examples),
        Hooks(told),
        lambda: 0.0,
        LoopState(),
    )
    assert told[-1][MetricName.EVAL_ACCURACY] == 1.0
    assert told[-1][MetricName.EVAL_LOSS] < 0.9 * math.log(2)
    assert start == known.reference
    assert 12 * sum(example.size for example in examples) == state.trained_tokens


class Hooks:
    def __init__(self, told):
        self.told = told

    def poll(self, step): ...
    def pause_wanted(self):
        return False

    def progress(self, message): ...
    def evaluated(self, phase, step, metrics):
        self.told.append(metrics)

    def checkpoint(self, state, metrics): ...


def test_training_ends_when_it_is_enough(objective, llama_dir):
    """The loop stops at the first evaluation of which `enough` says so."""
    model = attach_lora(load_causal(str(llama_dir), CPU), Lora())
    examples = tuple(objective.read(ROWS))
    known = objective.scored(model, examples, lambda: None)
    spec = TrainingSpec(
        model="", method=Method.SUPERVISED, hyperparameters=Hyperparameters(n_epochs=9, batch_size=3, n_evals=2)
    )
    state = train(
        spec,
        Trainee(model, known, Optimiser(model, 0.0, 1.0)),
        Parts(examples, validation=examples),
        Hooks([]),
        lambda: 0.0,
        LoopState(),
        enough=lambda metrics: MetricName.EVAL_ACCURACY in metrics,
    )
    assert state.step == 3


def test_a_pair_stays_in_one_micro_batch(objective):
    """Both completions of a pair are always weighed in one forward pass, whatever fits into it."""
    small = replace(objective, likelihood=replace(objective.likelihood, row_tokens=4))
    examples = small.read(ROWS)
    packed = small.micro_batches(examples)
    assert len(packed) > 1
    assert sorted(map(id, examples)) == sorted(id(example) for micro in packed for example in micro)
    assert all(example.other is not None for example in examples)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({}, RowReason.MISSING_KEY),
        ({"chosen": " alpha", "rejected": " bravo"}, RowReason.MISSING_KEY),
        ({"prompt": "alpha", "chosen": " alpha"}, RowReason.MISSING_KEY),
        ({"prompt": "alpha", "chosen": 3, "rejected": " bravo"}, RowReason.WRONG_TYPE),
        ({"prompt": "alpha", "chosen": " alpha", "rejected": "  "}, RowReason.EMPTY_TEXT),
        ({"prompt": "alpha " * 70, "chosen": " alpha", "rejected": " bravo"}, RowReason.TOO_LONG),
    ],
)
def test_unusable_pairs_have_a_reason(objective, row, reason):
    """A row that gives no pair has its reason from the closed list."""
    assert [reason] == objective.read([row])


def test_messages_are_taken_too(objective):
    """Prompt and completions may be lists of messages; only the assistant's turns are compared."""
    row = {
        "prompt": [{"role": "user", "content": "alpha"}],
        "chosen": [{"role": "assistant", "content": "bravo"}],
        "rejected": [{"role": "assistant", "content": "echo echo"}],
    }
    [example] = objective.read([row])
    assert [2, 3] == [sum(example.learned), sum(example.other.learned)]
