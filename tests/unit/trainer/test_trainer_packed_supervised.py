# SPDX-License-Identifier: Apache-2.0
"""Supervised fine-tuning: which tokens are learned, and that packing changes nothing."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from cloister_workers.errors import TrainerError
from cloister_workers.messages import FailureCode, RowReason
from cloister_workers.trainer import attention, chunked, cross_entropy
from cloister_workers.trainer.adapt import attach_lora
from cloister_workers.trainer.loop import accumulate
from cloister_workers.trainer.model import load_causal, load_tokenizer
from cloister_workers.trainer.objectives.chat import ChatReader
from cloister_workers.trainer.objectives.supervised import Supervised
from cloister_workers.trainer.probe import check_packing
from cloister_workers.trainer.spec import Lora
from tiny_models import chat_rows

CPU = torch.device("cpu")


@pytest.fixture
def reader(llama_dir):
    return ChatReader(load_tokenizer(str(llama_dir), chat=True), 64)


@pytest.fixture
def objective(reader):
    return Supervised(reader, 64, CPU)


@pytest.fixture
def adapted(llama_dir):
    """A llama whose adapters are not zero, so that every adapter has a gradient."""
    torch.manual_seed(1)
    model = attach_lora(load_causal(str(llama_dir), CPU), Lora(target_modules=("q_proj", "v_proj")))
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.3)
    return model


def examples_of(objective, count=9):
    return objective.read([json.loads(line) for line in chat_rows(count).splitlines()])


def gradients(model):
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


def padded_reference(model, examples):
    """What a plain script computes: padded rows, whole logits, transformers' own attention."""
    width = max(len(example.tokens) for example in examples)
    ids = torch.zeros(len(examples), width, dtype=torch.long)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
    for row, example in enumerate(examples):
        size = len(example.tokens)
        ids[row, :size], mask[row, :size] = torch.tensor(example.tokens.tolist()), 1
        learned = torch.tensor(list(example.learned), dtype=torch.bool)
        labels[row, :size] = torch.where(learned, ids[row, :size], -100)
    base = model.get_base_model()
    base.set_attn_implementation("sdpa")
    logits = base(input_ids=ids, attention_mask=mask).logits
    base.set_attn_implementation(attention.NAME)
    return functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100)


def test_packed_loss_and_gradients_equal_the_padded_ones(adapted, objective):
    """A packed step has the loss and the adapter gradients of the padded reference, to 1e-6 in float32."""
    examples = examples_of(objective)
    assert 1 < len(objective.micro_batches(examples)) < len(examples)
    loss = accumulate(adapted, objective, examples, lambda: None)
    packed = gradients(adapted)
    reference = padded_reference(adapted, examples)
    reference.backward()
    expected = gradients(adapted)
    assert reference.item() == pytest.approx(loss, abs=1e-6)
    assert expected.keys() == packed.keys()
    assert len(expected) == 8
    assert max(float((expected[name] - packed[name]).abs().max()) for name in expected) < 2e-6


def test_without_boundaries_the_gradients_differ(adapted, objective, monkeypatch):
    """The comparison above can fail: one sequence instead of several gives clearly other gradients."""
    examples = examples_of(objective)
    accumulate(adapted, objective, examples, lambda: None)
    packed = gradients(adapted)
    monkeypatch.setattr("cloister_workers.trainer.decoder.cumulative_lengths", lambda lengths: [0, sum(lengths)])
    accumulate(adapted, objective, examples, lambda: None)
    wrong = gradients(adapted)
    assert max(float((wrong[name] - packed[name]).abs().max()) for name in packed) > 1e-2


def test_losses_are_per_example(adapted, objective):
    """An example's summed loss does not depend on what it is packed with, and weights count its label tokens."""
    examples = examples_of(objective, 4)
    with torch.no_grad():
        together = objective.outcome(adapted, examples).sums
        alone = torch.cat([objective.outcome(adapted, [example]).sums for example in examples])
    assert torch.allclose(alone, together, atol=1e-5)
    assert [sum(example.learned) for example in examples] == [objective.weight(example) for example in examples]


@pytest.mark.parametrize("trained_head", [False, True])
def test_chunked_cross_entropy_equals_the_whole(trained_head, monkeypatch):
    """Losses and gradients are those of the whole logits, for a frozen head and for a trained one."""
    monkeypatch.setattr(chunked, "CHUNK", 3)
    torch.manual_seed(0)
    head = torch.nn.Linear(6, 11).requires_grad_(trained_head)
    targets, weights = torch.randint(11, (8,)), torch.rand(8)
    first = torch.randn(8, 6, requires_grad=True)
    second = first.detach().clone().requires_grad_()
    got = cross_entropy.token_losses(first, head, targets)
    expected = functional.cross_entropy(head(second), targets, reduction="none")
    (got * weights).sum().backward()
    slopes = [p.grad for p in head.parameters()]
    for parameter in head.parameters():
        parameter.grad = None
    (expected * weights).sum().backward()
    assert torch.allclose(expected, got, atol=1e-6)
    for wanted, found in zip([second.grad, *(p.grad for p in head.parameters())], [first.grad, *slopes], strict=True):
        assert (wanted is None) == (found is None)
        assert wanted is None or found is None or torch.allclose(wanted, found, atol=1e-6)


def test_sliding_window_is_kept():
    """Packed attention with a window equals attention with a band mask on each sequence."""
    torch.manual_seed(0)
    query, key, value = (torch.randn(1, 2, 7, 4) for _ in range(3))
    bounds = torch.tensor([0, 5, 7], dtype=torch.int32)
    module = torch.nn.Identity()
    got, _ = attention.packed_attention(
        module, query, key, value, None, sliding_window=2, cu_seqlens=bounds, max_seqlen=5
    )
    for start, end in ((0, 5), (5, 7)):
        size = end - start
        band = torch.ones(size, size).tril().bool() & torch.ones(size, size).triu(-1).bool()
        q, k, v = (tensor[:, :, start:end] for tensor in (query, key, value))
        expected = functional.scaled_dot_product_attention(q, k, v, attn_mask=band).transpose(1, 2)
        assert torch.allclose(expected, got[:, start:end], atol=1e-6)


def test_unsupported_architecture_is_refused(llama_dir):
    """A model whose logits are not its head's plain output is refused before training."""
    model = load_causal(str(llama_dir), CPU).model
    check_packing(model, CPU)
    plain = model.forward
    model.forward = lambda *args, **kwargs: _scaled(plain(*args, **kwargs))
    with pytest.raises(TrainerError) as caught:
        check_packing(model, CPU)
    assert FailureCode.MODEL_UNSUPPORTED == caught.value.code


def _scaled(output):
    output.logits = output.logits * 0.5
    return output


# ---------------------------------------------------------------- from rows to learned tokens
def learned_words(reader, row):
    example = reader.read(row)
    pairs = zip(example.tokens, example.learned, strict=True)
    return reader.tokenizer.convert_ids_to_tokens([token for token, learned in pairs if learned])


def chat(*turns):
    return [{"role": role, "content": content} for role, content in turns]


def test_only_assistant_turns_are_learned(reader):
    """Every assistant turn with its end-of-text token is learned, and nothing else of the chat."""
    messages = chat(
        ("system", "golf"), ("user", "alpha"), ("assistant", "bravo"), ("user", "hotel"), ("assistant", "echo")
    )
    assert ["bravo", "[EOS]", "echo", "[EOS]"] == learned_words(reader, {"messages": messages})


def test_only_the_completion_is_learned(reader):
    """Of prompt and completion the completion and the end-of-text token are learned."""
    assert ["bravo", "[EOS]"] == learned_words(reader, {"prompt": "alpha", "completion": " bravo"})
    row = {
        "prompt": chat(("user", "alpha"), ("assistant", "golf"), ("user", "echo")),
        "completion": chat(("assistant", "bravo")),
    }
    assert ["bravo", "[EOS]"] == learned_words(reader, row)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({}, RowReason.MISSING_KEY),
        ({"prompt": "alpha"}, RowReason.MISSING_KEY),
        ({"prompt": "alpha", "completion": 3}, RowReason.WRONG_TYPE),
        ({"prompt": [], "completion": []}, RowReason.EMPTY_TEXT),
        ({"messages": "alpha"}, RowReason.WRONG_TYPE),
        ({"messages": [{"role": "user"}]}, RowReason.MISSING_KEY),
        ({"messages": [{"role": "critic", "content": "x"}]}, RowReason.UNKNOWN_ROLE),
        ({"messages": [{"role": [], "content": "x"}]}, RowReason.UNKNOWN_ROLE),
        ({"messages": [{"role": "user", "content": "x"}]}, RowReason.NO_COMPLETION),
        ({"prompt": "alpha " * 70, "completion": "bravo"}, RowReason.TOO_LONG),
    ],
)
def test_unusable_rows_have_a_reason(reader, row, reason):
    """A row that gives no example has its reason from the closed list."""
    assert reason == reader.read(row)


def test_template_that_refuses_is_a_row_error(reader):
    """A chat template that raises on a row gives a row error, not a failed job."""
    reader.tokenizer.chat_template = "{{ raise_exception('no') }}"
    row = {"messages": chat(("user", "alpha"), ("assistant", "bravo"))}
    assert RowReason.TEMPLATE_REFUSED == replace(reader).read(row)
