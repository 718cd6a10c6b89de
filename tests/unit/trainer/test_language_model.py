# SPDX-License-Identifier: Apache-2.0
"""Plain and masked language modelling, and the penalty that keeps a model near where it began."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn import functional

from cloister_workers.messages import MetricName, RowReason
from cloister_workers.trainer import attention
from cloister_workers.trainer.adapt import attach_lora
from cloister_workers.trainer.loop import accumulate
from cloister_workers.trainer.model import load_causal, load_tokenizer
from cloister_workers.trainer.objectives.anchor import Anchored, Before, Divergence
from cloister_workers.trainer.objectives.language_model import language_model
from cloister_workers.trainer.objectives.masked_language_model import MaskedLanguageModel
from cloister_workers.trainer.spec import Lora
from planted import write_tiny_masked
from tiny_models import WORDS, write_llama

CPU = torch.device("cpu")
EOS = 2


@pytest.fixture
def plain(llama_dir):
    return language_model(load_tokenizer(str(llama_dir), chat=True), 32, 1, CPU)


@pytest.fixture
def adapted(llama_dir):
    torch.manual_seed(1)
    return attach_lora(load_causal(str(llama_dir), CPU), Lora(rank=4)).eval()


def texts(count):
    return [
        {"text": " ".join(WORDS[(number * step + step) % 10] for step in range(1, 4 + number % 5))}
        for number in range(count)
    ]


# ---------------------------------------------------------------- plain
def test_every_token_is_learned_from_the_start(plain):
    """A text is predicted from the token that starts texts, and ends with the end-of-text token."""
    [example] = plain.read([{"text": "alpha bravo"}])
    names = plain.reader.tokenizer.convert_ids_to_tokens(example.tokens.tolist())
    assert ["[EOS]", "alpha", "bravo", "[EOS]"] == names
    assert [0, 1, 1, 1] == list(example.learned)


def test_the_loss_is_transformers_own(plain, adapted):
    """The packed step has the mean loss that transformers computes from padded rows and labels."""
    examples = plain.read(texts(7))
    with torch.no_grad():
        ours = plain.outcome(adapted, examples).sums.sum() / sum(map(plain.weight, examples))
        width = max(len(example.tokens) for example in examples)
        ids, labels = torch.zeros(7, width, dtype=torch.long), torch.full((7, width), -100)
        for row, example in enumerate(examples):
            ids[row, : len(example.tokens)] = labels[row, : len(example.tokens)] = torch.tensor(example.tokens.tolist())
        base = adapted.get_base_model()
        base.set_attn_implementation("sdpa")
        expected = base(input_ids=ids, attention_mask=(labels != -100).long(), labels=labels).loss
        base.set_attn_implementation(attention.NAME)
    assert float(expected) == pytest.approx(float(ours), abs=1e-5)


@pytest.mark.parametrize(
    ("row", "reason"),
    [({}, RowReason.MISSING_KEY), ({"text": " "}, RowReason.EMPTY_TEXT), ({"text": 1}, RowReason.WRONG_TYPE)],
)
def test_unusable_texts_have_a_reason(plain, row, reason):
    """A row without a usable text has its reason from the closed list."""
    assert [reason] == plain.read([row])


def test_long_texts_are_cut(plain):
    """A text of more tokens than max_seq_length is cut to them, and the example says so."""
    [example] = plain.read([{"text": "alpha " * 50}])
    assert example.truncated
    assert len(example.tokens) == 32


# ---------------------------------------------------------------- anchored
def test_the_penalty_is_the_divergence(plain, adapted):
    """The penalty equals KL(before || now) from whole logits, and is nothing before anything has moved."""
    before, examples = Before(adapted), plain.read(texts(3))
    divergence = Divergence(plain, before)
    assert float(divergence.sums(adapted, examples).detach().abs().max()) < 1e-6
    logits = [head_logits(adapted, plain, examples)]
    move(adapted)
    logits.append(head_logits(adapted, plain, examples))
    old, new = (entry.log_softmax(-1) for entry in logits)
    expected = functional.kl_div(new, old, log_target=True, reduction="sum")
    assert float(expected) > 0.1
    assert float(divergence.sums(adapted, examples).detach().sum()) == pytest.approx(float(expected), rel=1e-4)


def test_the_anchored_step_adds_the_penalty(plain, adapted):
    """Loss and gradients of a step are those of the plain loss plus strength times the penalty."""
    before, examples = Before(adapted), plain.read(texts(4))
    move(adapted)
    tokens = sum(map(plain.weight, examples))
    loss = accumulate(adapted, Anchored(plain, before, 0.5), examples, lambda: None)
    slopes = gradients(adapted)
    expected = plain.outcome(adapted, examples).sums.sum() / tokens
    expected = expected + 0.5 * Divergence(plain, before).sums(adapted, examples).sum() / tokens
    expected.backward()
    assert float(expected.detach()) == pytest.approx(loss, abs=1e-5)
    for name, slope in gradients(adapted).items():
        assert torch.allclose(slope, slopes[name], atol=1e-5)


def test_what_was_is_put_away_again(plain, adapted):
    """After a look at the model before training, the trained tensors are the trained ones."""
    before = Before(adapted)
    move(adapted)
    now = {name: tensor.clone() for name, tensor in adapted.state_dict().items()}
    adapted.train()
    with before.restored(adapted):
        assert not adapted.training
        assert any(not torch.equal(now[name], tensor) for name, tensor in adapted.state_dict().items())
    assert adapted.training
    assert all(torch.equal(now[name], tensor) for name, tensor in adapted.state_dict().items())


def test_evaluations_are_without_the_penalty(plain, adapted):
    """Perplexity on the validation part is that of the text, not of text and penalty."""
    before, examples = Before(adapted), plain.read(texts(4))
    move(adapted)
    with torch.no_grad():
        anchored = Anchored(plain, before, 9.0).outcome(adapted, examples)
        assert torch.equal(plain.outcome(adapted, examples).sums, anchored.sums)


def head_logits(model, plain, examples):
    with torch.no_grad():
        states, _, _ = plain.predictions(model, examples)
        return model.get_base_model().get_output_embeddings()(states)


def move(model):
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.3)


def gradients(model):
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


# ---------------------------------------------------------------- masked
@pytest.fixture(scope="module")
def masked_dir(tmp_path_factory):
    return write_tiny_masked(tmp_path_factory.mktemp("masked"))


@pytest.fixture
def masked(masked_dir):
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(masked_dir)
    return MaskedLanguageModel(tokenizer, 32, 4, CPU, seed=11)


def long_texts(count):
    words = ("The", "river", "house", "garden", "table", "kind", "bold", "warm", "he", "she")
    return [{"text": " ".join(words[(number + step * step) % 10] for step in range(20))} for number in range(count)]


def test_masks_follow_from_seed_and_text(masked):
    """Equal seeds and texts give equal masks in whatever order they come; another seed gives others."""
    rows = long_texts(12)
    first, again = masked.read(rows), masked.read(rows[::-1])[::-1]
    assert [example.learned for example in first] == [example.learned for example in again]
    assert [masked.gaps(example) for example in first] == [masked.gaps(example) for example in again]
    other = replace(masked, seed=12).read(rows)
    assert [example.learned for example in first] != [example.learned for example in other]


def test_the_masks_are_those_of_the_docstring(masked):
    """Targets are the positions with the smallest hashes, as a plain script computes them."""
    [example] = masked.read(long_texts(1))
    text = long_texts(1)[0]["text"]
    digest = hashlib.sha256(json.dumps([text]).encode()).digest()
    places = range(1, 21)  # between the special tokens
    ranked = sorted(
        places,
        key=lambda place: hashlib.sha256(b"cloister/masks/v1" + (11).to_bytes(8) + digest + place.to_bytes(4)).digest(),
    )
    assert set(ranked[:3]) == {place for place, mark in enumerate(example.learned) if mark}


def test_shares_are_those_of_the_paper(masked):
    """Of many texts 15 % of the tokens are targets: 80 % masked, 10 % replaced, 10 % kept; special tokens never."""
    examples = masked.read([{"text": f"{row['text']} w{n}"} for n, row in enumerate(long_texts(400))])
    marks = [mark for example in examples for mark in example.learned if mark]
    assert all(example.learned[0] == example.learned[-1] == 0 for example in examples)
    assert len(marks) == 3 * 400
    for mark, share in ((2, 0.8), (3, 0.1), (1, 0.1)):
        assert marks.count(mark) / len(marks) == pytest.approx(share, abs=0.03)
    for example in examples[:50]:
        seen = masked.gaps(example)
        for place, mark in enumerate(example.learned):
            if mark == 2:
                assert seen[place] == masked.tokenizer.mask_token_id
            elif mark != 3:
                assert seen[place] == example.tokens[place]


def test_the_masked_loss_is_transformers_own(masked, masked_dir):
    """The step's loss is the mean that transformers computes from the same gaps and labels."""
    import transformers

    model = transformers.AutoModelForMaskedLM.from_pretrained(masked_dir).eval()
    examples = masked.read([*long_texts(3), {"text": "The river"}])
    with torch.no_grad():
        outcome = masked.outcome(model, examples)
    width = max(len(example.tokens) for example in examples)
    ids, labels = torch.zeros(4, width, dtype=torch.long), torch.full((4, width), -100)
    mask = torch.zeros_like(ids)
    for row, example in enumerate(examples):
        size = len(example.tokens)
        ids[row, :size], mask[row, :size] = torch.tensor(masked.gaps(example)), 1
        for place, mark in enumerate(example.learned):
            if mark:
                labels[row, place] = example.tokens[place]
    expected = model(input_ids=ids, attention_mask=mask, labels=labels).loss
    weights = sum(map(masked.weight, examples))
    assert float(expected.detach()) == pytest.approx(float(outcome.sums.sum()) / weights, abs=1e-5)
    scores = masked.score(examples, outcome.sums.tolist(), outcome.predicted.tolist())
    assert scores[MetricName.EVAL_LOSS] == pytest.approx(float(expected.detach()), abs=1e-5)


def test_texts_of_special_tokens_alone_have_a_reason(masked):
    """A text with nothing to mask is refused."""
    assert [RowReason.EMPTY_TEXT] == masked.read([{"text": " "}])


@pytest.mark.filterwarnings("ignore::FutureWarning")  # peft asks transformers for an attribute under its old name
def test_a_masked_model_takes_an_adapter(masked_dir, tmp_path):
    """LoRA without a task loads back onto a masked model with equal logits."""
    import peft
    import transformers

    from cloister_workers.trainer.model import Base

    base = transformers.AutoModelForMaskedLM.from_pretrained(masked_dir).eval()
    model: Any = attach_lora(Base(base, ()), Lora(rank=2, target_modules=("all-linear",))).eval()
    move(model)
    ids = torch.tensor([[3, 4, 5]])
    expected = model(input_ids=ids).logits
    model.save_pretrained(tmp_path, save_embedding_layers=False)
    again = peft.PeftModel.from_pretrained(transformers.AutoModelForMaskedLM.from_pretrained(masked_dir), tmp_path)
    assert torch.allclose(expected, again.eval()(input_ids=ids).logits, atol=1e-6)


def test_all_linear_is_every_linear_layer_but_the_output(tmp_path):
    """The one target `all-linear` puts adapters on every projection of a decoder."""
    model = attach_lora(load_causal(str(write_llama(tmp_path)), CPU), Lora(target_modules=("all-linear",)))
    names = {name.split(".lora_")[0].split(".")[-1] for name, p in model.named_parameters() if p.requires_grad}
    assert {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"} == names
