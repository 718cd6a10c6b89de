# SPDX-License-Identifier: Apache-2.0
"""Models that packing would change run padded, with the results of the plain model."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers

from cloister_workers.errors import TrainerError
from cloister_workers.messages import FailureCode
from cloister_workers.trainer.attention import NAME
from cloister_workers.trainer.eager_attention import PADDED
from cloister_workers.trainer.example import Example
from cloister_workers.trainer.model import load_causal, load_tokenizer
from cloister_workers.trainer.objectives.language_model import language_model
from cloister_workers.trainer.probe import settle_packing
from tiny_models import WORDS, write_tokenizer

CPU = torch.device("cpu")
SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "initializer_range": 1.0,
}


def texts(count):
    return [{"text": " ".join(WORDS[(n * s + s) % 10] for s in range(1, 4 + 3 * n))} for n in range(count)]


def step(folder, model):
    """Losses of some texts, and the gradients of their sum."""
    objective = language_model(load_tokenizer(str(folder)), 64, 2, CPU)
    examples = [example for example in objective.read(texts(6)) if isinstance(example, Example)]
    assert 6 == len(examples)
    sums = objective.outcome(model, examples).sums
    model.zero_grad()
    sums.sum().backward()
    return examples, sums.detach(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_padded_and_packed_are_the_same_on_a_plain_decoder(llama_dir):
    """Losses and gradients of a llama do not depend on whether it runs packed or padded."""
    model: Any = load_causal(str(llama_dir), CPU).model
    settle_packing(model, CPU)
    assert NAME == model.config._attn_implementation
    _, packed, slopes = step(llama_dir, model)
    model.set_attn_implementation(PADDED)
    _, padded, others = step(llama_dir, model)
    assert packed.tolist() == pytest.approx(padded.tolist(), abs=1e-4)
    assert slopes.keys() == others.keys()
    assert all(torch.allclose(slope, others[name], atol=1e-4) for name, slope in slopes.items())


@pytest.mark.parametrize(
    "config",
    [
        transformers.Gemma2Config(**SIZES, sliding_window=8, query_pre_attn_scalar=8),
        transformers.GraniteConfig(
            **{key: value for key, value in SIZES.items() if key != "head_dim"}, logits_scaling=4.0
        ),
    ],
    ids=["soft caps", "scaled logits"],
)
def test_models_that_packing_changes_have_their_own_losses(config, tmp_path):
    """A model with soft-capped or scaled logits is run padded, and its losses are those of the plain model."""
    config.vocab_size = write_tokenizer(tmp_path)
    torch.manual_seed(4)
    plain = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    plain.save_pretrained(tmp_path)
    model: Any = load_causal(str(tmp_path), CPU).model
    settle_packing(model, CPU)
    assert PADDED == model.config._attn_implementation
    examples, sums, _ = step(tmp_path, model)
    for example, ours in zip(examples, sums.tolist(), strict=True):
        ids = torch.tensor([example.tokens.tolist()])
        with torch.no_grad():
            loss = float(plain(input_ids=ids, labels=ids).loss) * (len(example.tokens) - 1)
        assert loss == pytest.approx(ours, rel=1e-4)


def test_a_model_that_sees_ahead_is_refused(tmp_path):
    """Padding is no way out for a model whose predictions depend on later tokens: MODEL_UNSUPPORTED."""
    config = transformers.BertConfig(
        vocab_size=write_tokenizer(tmp_path), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=64, pad_token_id=0, initializer_range=0.5,
    )  # fmt: skip
    model = transformers.BertLMHeadModel(config)
    with pytest.raises(TrainerError) as caught:
        settle_packing(model, CPU)
    assert FailureCode.MODEL_UNSUPPORTED == caught.value.code
