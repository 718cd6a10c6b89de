# SPDX-License-Identifier: Apache-2.0
"""The losses of preference learning and of reward models are TRL's own, to 1e-5, with their gradients."""

from __future__ import annotations

import importlib
import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from cloister_workers.trainer import attention
from cloister_workers.trainer.loop import accumulate
from cloister_workers.trainer.model import load_classifier, load_tokenizer
from cloister_workers.trainer.objectives import preference_losses as losses
from cloister_workers.trainer.objectives.chat import ChatReader
from cloister_workers.trainer.objectives.kto import UnpairedPreference
from cloister_workers.trainer.objectives.preference import Preference
from cloister_workers.trainer.objectives.reward import LABELS, RewardModel
from cloister_workers.trainer.objectives.supervised import Supervised

# datasets' thread of progress bars and the renamed settings of transformers are not ours to mend
pytestmark = pytest.mark.filterwarnings(
    "ignore::FutureWarning",
    "ignore::DeprecationWarning",
    "ignore::UserWarning",
    "ignore::trl.import_utils.TRLExperimentalWarning",
)
CPU = torch.device("cpu")
PAIRS = [
    {"prompt": "alpha bravo", "chosen": " charlie delta", "rejected": " echo"},
    {"prompt": "golf", "chosen": " hotel", "rejected": " india juliett alpha"},
    {"prompt": "echo echo delta", "chosen": " alpha", "rejected": " bravo"},
]
VERDICTS = [
    {"prompt": "alpha bravo", "completion": " charlie delta", "label": True},
    {"prompt": "golf", "completion": " india juliett alpha", "label": False},
    {"prompt": "echo echo delta", "completion": " alpha", "label": True},
    {"prompt": "hotel", "completion": " bravo bravo", "label": False},
]
BETA = 0.4


@pytest.fixture
def likelihood(llama_dir):
    return Supervised(ChatReader(load_tokenizer(str(llama_dir), chat=True), 64), 64, CPU)


def read(objective, rows):
    return objective.read(rows)


def settings_of(directory, **more):
    common = {"report_to": [], "use_cpu": True, "bf16": False, "max_length": 64, "activation_checkpointing": False}
    return {"output_dir": str(directory), **common, **more}


def gradients(model):
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


def assert_close(theirs, ours):
    assert theirs.keys() == ours.keys()
    assert max(float((theirs[name] - ours[name]).abs().max()) for name in theirs) < 1e-5
    assert max(float(slope.abs().max()) for slope in ours.values()) > 1e-3


def test_ipo_is_trls(likelihood, base, moved, tmp_path):
    """IPO of single pairs and the gradients of a batch are those of TRL's DPOTrainer with loss_type ipo."""
    datasets, trl = importlib.import_module("datasets"), importlib.import_module("trl")
    objective = Preference(likelihood, BETA, loss=losses.LOSSES["ipo"])
    examples = read(objective, PAIRS)
    known = objective.scored(base, examples, lambda: None)
    ours = known.outcome(moved, examples).sums.detach()
    accumulate(moved, known, examples, lambda: None)
    slopes = gradients(moved)
    for model in (base, moved):
        model.set_attn_implementation("sdpa")
    trainer = trl.DPOTrainer(
        model=moved,
        ref_model=base,
        args=trl.DPOConfig(**settings_of(tmp_path, loss_type=["ipo"], beta=BETA)),
        train_dataset=datasets.Dataset.from_list(PAIRS),
        processing_class=likelihood.reader.tokenizer,
    )
    moved.eval()
    for index in range(len(PAIRS)):
        theirs = trainer.compute_loss(moved, trainer.data_collator([trainer.train_dataset[index]]))
        assert float(theirs.detach()) == pytest.approx(float(ours[index]), rel=1e-5, abs=1e-5)
    trainer.compute_loss(moved, trainer.data_collator([*trainer.train_dataset])).backward()
    assert_close(gradients(moved), slopes)


def mean_log_probs(moved, examples):
    """TRL's mean log-probabilities of completions, from whole logits of plain attention, differentiable."""
    from trl.experimental.cpo import CPOTrainer

    moved.set_attn_implementation("eager")
    found = []
    for example in examples:
        ids = torch.tensor([example.tokens.tolist()])
        labels = torch.where(torch.tensor([list(example.learned)]).bool(), ids, -100)
        found.append(CPOTrainer.get_batch_logps(moved(ids).logits, labels, average_log_prob=True))
    moved.set_attn_implementation(attention.NAME)
    return torch.cat(found)


def test_orpo_is_trls(likelihood, moved):
    """The odds ratio term is that of TRL's ORPOTrainer; the likelihood is the paper's, of the completion alone."""
    from trl.experimental.orpo import ORPOTrainer

    objective = Preference(likelihood, BETA, loss=losses.LOSSES["orpo"])
    examples = read(objective, PAIRS)
    ours = objective.outcome(moved, examples).sums
    accumulate(moved, objective, examples, lambda: None)
    slopes = gradients(moved)
    chosen = mean_log_probs(moved, examples)
    rejected = mean_log_probs(moved, [example.other for example in examples])
    stand_in = SimpleNamespace(beta=BETA, accelerator=SimpleNamespace(device="cpu"))
    term = ORPOTrainer.odds_ratio_loss(stand_in, chosen, rejected)[0]
    theirs = -chosen - term
    assert torch.allclose(theirs, ours, atol=1e-5)
    theirs.mean().backward()
    assert_close(gradients(moved), slopes)


def cpo(kind, chosen, rejected, **settings):
    from trl.experimental.cpo import CPOTrainer

    stand_in = SimpleNamespace(loss_type=kind, alpha=0.0, beta=BETA, accelerator=SimpleNamespace(device="cpu"))
    vars(stand_in).update(settings)
    return CPOTrainer.cpo_loss(stand_in, chosen, rejected)[0]


def test_simpo_is_trls(likelihood, moved):
    """SimPO of length-normalised log-probabilities with a margin is that of TRL's CPOTrainer with loss_type simpo."""
    objective = Preference(likelihood, BETA, loss=losses.LOSSES["simpo"], margin=0.7)
    examples = read(objective, PAIRS)
    ours = objective.outcome(moved, examples).sums
    accumulate(moved, objective, examples, lambda: None)
    slopes = gradients(moved)
    chosen = mean_log_probs(moved, examples)
    rejected = mean_log_probs(moved, [example.other for example in examples])
    theirs = cpo("simpo", chosen, rejected, simpo_gamma=0.7, label_smoothing=0.0)
    assert torch.allclose(theirs, ours, atol=1e-5)
    theirs.mean().backward()
    assert_close(gradients(moved), slopes)


def test_label_smoothing_is_trls(likelihood, base, moved):
    """Conservative DPO is the smoothed sigmoid loss of TRL's CPOTrainer on log-ratios."""
    objective = Preference(likelihood, BETA, certainty=0.8)
    examples = read(objective, PAIRS)
    known = objective.scored(base, examples, lambda: None)
    ours = known.outcome(moved, examples).sums
    ratios = [
        policy - reference
        for policy, reference in zip(known.log_probs(moved, examples), known.log_probs(base, examples), strict=True)
    ]
    assert torch.allclose(cpo("sigmoid", *ratios, label_smoothing=0.2), ours, atol=1e-5)


def test_kto_is_trls(likelihood, base, moved, tmp_path):
    """Batches of KTO and their gradients are those of TRL's KTOTrainer on the same mismatched texts."""
    datasets, trl = importlib.import_module("datasets"), importlib.import_module("trl")
    objective = UnpairedPreference(likelihood, 64, BETA)
    examples = read(objective, VERDICTS)
    known = objective.scored(base, examples, lambda: None)
    batches = ([0, 1, 2, 3], [0, 1], [2, 3], [1, 2])
    ours = [known.outcome(moved, [examples[i] for i in batch]).sums.detach() for batch in batches]
    accumulate(moved, known, examples, lambda: None)
    slopes = gradients(moved)
    for model in (base, moved):
        model.set_attn_implementation("sdpa")
    wanted = settings_of(tmp_path, beta=BETA, per_device_train_batch_size=4, train_sampling_strategy="sequential")
    trainer = trl.KTOTrainer(
        model=moved,
        ref_model=base,
        args=trl.KTOConfig(**wanted),
        train_dataset=datasets.Dataset.from_list(VERDICTS),
        processing_class=likelihood.reader.tokenizer,
    )
    moved.eval()
    own = [(row["prompt_ids"] + row["completion_ids"], row["label"]) for row in trainer.train_dataset]
    assert own == [(example.tokens.tolist(), example.label == "true") for example in examples]

    def theirs(batch):
        rows = []
        for place in batch:
            text = known.reference[examples[place].digest].text
            start = text.learned.index(1)
            row = {key: trainer.train_dataset[place][key] for key in ("prompt_ids", "completion_ids", "label")}
            assert row["prompt_ids"] == text.tokens.tolist()[:start]
            rows.append({**row, "KL_completion_ids": text.tokens.tolist()[start:]})
        return trainer.compute_loss(moved, trainer.data_collator(rows))

    for batch, found in zip(batches, ours, strict=True):
        assert float(theirs(batch).detach()) == pytest.approx(float(found.mean()), abs=1e-5)
    theirs(batches[0]).backward()
    assert_close(gradients(moved), slopes)


def test_ktos_divergence_counts(likelihood, base, moved):
    """Where the model has moved as a whole, z is above 0 and every loss is that of the paper with it."""
    objective = UnpairedPreference(likelihood, 64, BETA)
    examples = read(objective, VERDICTS)
    # Seen from the moved model, the one before it is what has moved.
    known = objective.scored(moved, examples, lambda: None)
    texts = [known.reference[example.digest].text for example in examples]
    with torch.no_grad():
        gains = -likelihood.outcome(base, texts).sums + likelihood.outcome(moved, texts).sums
        rewards = -likelihood.outcome(base, examples).sums + likelihood.outcome(moved, examples).sums
    z = max(0.0, float(gains.mean()))
    assert 0.1 < z
    signs = torch.tensor([1.0, -1.0, 1.0, -1.0])
    expected = 1 / (1 + torch.exp(BETA * signs * (rewards - z)))
    assert torch.allclose(expected, known.outcome(base, examples).sums, atol=1e-5)


def test_no_completion_pairs_with_a_later_row(likelihood, base):
    """A row is mismatched with the row before it, so training rows, which come first, never see a held-out one."""
    objective = UnpairedPreference(likelihood, 6, BETA)
    examples = read(objective, VERDICTS)
    known = objective.scored(base, examples, lambda: None)
    texts = [known.reference[example.digest].text for example in examples]
    plain = likelihood.reader.tokenizer
    told = [plain.decode(text.tokens, skip_special_tokens=True) for text in texts]
    assert told == [
        "alpha bravo india juliett alpha",
        "golf charlie delta",
        "echo echo delta india juliett alpha",
        "hotel alpha",
    ]
    assert all(any(text.learned) and len(text.tokens) <= 6 for text in texts)


@pytest.mark.parametrize("loss", ["dpo", "ipo", "orpo", "simpo"])
def test_the_supervised_term_adds_up(likelihood, base, moved, loss):
    """With sft the loss of a pair gains that much of the chosen completion's loss a token, whatever the loss is."""
    plain = Preference(likelihood, BETA, loss=losses.LOSSES[loss])
    examples = read(plain, PAIRS)
    known = plain.scored(base, examples, lambda: None)
    with torch.no_grad():
        more = replace(known, sft=0.5).outcome(moved, examples).sums - known.outcome(moved, examples).sums
        sums = likelihood.outcome(moved, examples).sums
    tokens = torch.tensor([likelihood.weight(example) for example in examples])
    assert torch.allclose(0.5 * sums / tokens, more, atol=1e-5)


def test_odds_near_certainty_stay_finite():
    """ORPO's loss and slope are finite for completions that are all but certain, and all but impossible."""
    sums = torch.tensor([-1e-9, -1e4, -1e-9], requires_grad=True)
    ones, zeros = torch.ones(3), torch.zeros(3)
    pairs = losses.Pairs(sums, torch.tensor([-1e4, -1e-9, -1e-9]), ones, ones, zeros, zeros, ones)
    found = losses.orpo(pairs, losses.Weights(BETA))
    found.sum().backward()
    assert bool(found.isfinite().all())
    assert sums.grad is not None
    assert bool(sums.grad.isfinite().all())
    assert float(found[2].detach()) == pytest.approx(BETA * math.log(2), abs=1e-6)


@pytest.mark.parametrize("kind", ["causal", "encoder"])
def test_the_reward_models_loss_is_trls(llama_dir, bert_dir, tmp_path, kind):
    """Losses of single pairs, and the gradients of a batch padded at the right, are those of TRL's RewardTrainer."""
    datasets, trl = importlib.import_module("datasets"), importlib.import_module("trl")
    folder = str(llama_dir if kind == "causal" else bert_dir)
    tokenizer = load_tokenizer(folder, padded=True, chat=True)
    torch.manual_seed(5)
    model = load_classifier(folder, LABELS, tokenizer.pad_token_id, CPU).model.eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    objective = RewardModel(ChatReader(tokenizer, 64), 8, CPU)
    examples = read(objective, PAIRS)
    ours = objective.outcome(model, examples).sums.detach()
    accumulate(model, objective, examples, lambda: None)
    slopes = gradients(model)
    trainer = trl.RewardTrainer(
        model=model,
        args=trl.RewardConfig(**settings_of(tmp_path)),
        train_dataset=datasets.Dataset.from_list(PAIRS),
        processing_class=tokenizer,
    )
    model.eval()
    assert [row["chosen_ids"] for row in trainer.train_dataset] == [example.tokens.tolist() for example in examples]
    for index in range(len(PAIRS)):
        theirs = trainer.compute_loss(model, trainer.data_collator([trainer.train_dataset[index]]))
        assert float(theirs.detach()) == pytest.approx(float(ours[index]), abs=1e-5)
    trainer.compute_loss(model, trainer.data_collator([*trainer.train_dataset])).backward()
    assert_close(gradients(model), slopes)
