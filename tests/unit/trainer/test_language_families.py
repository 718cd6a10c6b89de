# SPDX-License-Identifier: Apache-2.0
"""Language modelling by families of models: each learns, tokenizers come back as they were, others are refused."""

from __future__ import annotations

import copy
import io
import json
import random
from typing import Any

import pytest
import transformers

from cloister_workers.errors import ModelKindError, TrainerError
from cloister_workers.messages import (
    EvaluationPhase,
    FailureCode,
    MetricName,
    ModelNeed,
)
from cloister_workers.trainer import byte_pairs, job, layer
from cloister_workers.trainer.bundle import read_bundle
from cloister_workers.trainer.objectives.language_modeling import is_masked
from language_jobs import KV, SMALL, TRAINED, WINDOWS, jsonl, measured, spec_of, texts
from planted import write_tiny_masked
from tiny_models import write_llama
from trainer_jobs import run_job


@pytest.fixture(scope="module")
def masked_dir(tmp_path_factory):
    return write_tiny_masked(tmp_path_factory.mktemp("masked"))


# ---------------------------------------------------------------- families
FAMILIES = {
    "gpt2": (
        transformers.GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=64, bos_token_id=0, eos_token_id=0),
        "cloister_packed",
    ),
    "llama": (transformers.LlamaConfig(**KV), "cloister_packed"),
    "qwen2": (transformers.Qwen2Config(**KV), "cloister_packed"),
    "mistral": (transformers.MistralConfig(**KV, sliding_window=8), "cloister_packed"),
    "gemma": (transformers.GemmaConfig(**KV, head_dim=8), "cloister_packed"),
    "gemma2": (transformers.Gemma2Config(**WINDOWS, query_pre_attn_scalar=8), "eager"),  # soft caps
    "granite": (transformers.GraniteConfig(**KV, logits_scaling=4.0), "eager"),
    "bert": (transformers.BertConfig(**SMALL), None),
    "roberta": (transformers.RobertaConfig(**{**SMALL, "pad_token_id": 1}), None),
    "xlm-roberta": (transformers.XLMRobertaConfig(**{**SMALL, "pad_token_id": 1}), None),
    "distilbert": (
        transformers.DistilBertConfig(dim=32, n_layers=2, n_heads=4, hidden_dim=48, max_position_embeddings=64),
        None,
    ),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_learns(family, tmp_path, recorder, monkeypatch):
    """A tiny model of each family falls well under the loss of guessing evenly, on texts longer than its positions."""
    config, attention = FAMILIES[family]
    config.save_pretrained(tmp_path / "config")
    seen: list[Any] = []

    def attach(base, *rest):
        seen.append(base.model)
        return layer.attach(base, *rest)

    monkeypatch.setattr(job, "attach", attach)
    settings = {"max_seq_length": 512, "micro_batch_size": 4, "n_epochs": 4}
    run_job(spec_of(TRAINED, **settings), tmp_path / "config", tmp_path, recorder, jsonl(texts(60, 40)))
    before, after = (measured(recorder, phase) for phase in (EvaluationPhase.BEFORE, EvaluationPhase.AFTER))
    assert 5.7 == pytest.approx(before[MetricName.EVAL_LOSS], abs=0.3)
    assert after[MetricName.EVAL_LOSS] < before[MetricName.EVAL_LOSS] - 0.8
    assert after[MetricName.EVAL_LOSS_CI_LOW] < after[MetricName.EVAL_LOSS] < after[MetricName.EVAL_LOSS_CI_HIGH]
    if attention:
        assert attention == seen[0].config._attn_implementation


@pytest.mark.parametrize("family", FAMILIES)
def test_a_trained_tokenizer_loads_again_as_it_was(family, tmp_path):
    """A trained tokenizer is what transformers makes of the result's files, whatever class it takes for them."""
    config, attention = copy.deepcopy(FAMILIES[family][0]), FAMILIES[family][1]
    rows = ["The quick brown fox", "Hello, World! naïve  two  spaces\n\nnew line", "def f(x):\n    return x"] * 3
    made = byte_pairs.train_tokenizer(rows, 300, byte_pairs.specials_of(config, masked=attention is None))
    tokenizer = byte_pairs.as_loaded(made, config)
    config.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    again = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text in rows[:3]:
        ids = tokenizer(text)["input_ids"]
        assert ids == again(text)["input_ids"]
        assert text == again.decode(ids, skip_special_tokens=True)


@pytest.mark.parametrize(
    ("config", "asked", "masked"),
    [
        (transformers.BertConfig(), "auto", True),
        (transformers.BertConfig(is_decoder=True), "auto", False),
        (transformers.LlamaConfig(), "auto", False),
        (transformers.XLMRobertaConfig(), "auto", True),
        (transformers.GPT2Config(), "causal", False),
    ],
)
def test_the_objective_goes_by_the_architecture(config, asked, masked):
    """Encoders are masked, decoders and encoders that say they decode are causal."""
    assert masked == is_masked(config, asked)


@pytest.mark.parametrize(
    ("config", "asked", "need"),
    [(transformers.GPT2Config(), "masked", ModelNeed.MASKED), (transformers.ViTConfig(), "auto", ModelNeed.CAUSAL)],
)
def test_models_without_the_objective_are_refused(config, asked, need):
    """A decoder cannot fill gaps, and a model of pictures has no next token: MODEL_INVALID, with the kind to name."""
    with pytest.raises(ModelKindError) as caught:
        is_masked(config, asked)
    assert (FailureCode.MODEL_INVALID, need) == (caught.value.code, caught.value.need)


def test_an_encoder_is_no_causal_model(masked_dir, tmp_path, recorder):
    """A BERT that sees tokens ahead is MODEL_INVALID as a causal model: it would only learn to copy them."""
    with pytest.raises(TrainerError) as caught:
        run_job(
            spec_of({"objective": "causal"}), masked_dir, tmp_path, recorder, jsonl(f"The river {n}" for n in range(9))
        )
    assert FailureCode.MODEL_INVALID == caught.value.code


def test_a_tokenizer_without_a_mask_is_refused(bert_dir, tmp_path, recorder):
    """A masked objective needs a mask token: MODEL_INVALID."""
    with pytest.raises(TrainerError) as caught:
        run_job(spec_of(), bert_dir, tmp_path, recorder, jsonl(texts(9)))
    assert FailureCode.MODEL_INVALID == caught.value.code


def test_a_tokenizer_with_no_special_token_works(tmp_path, recorder):
    """A causal model whose tokenizer has neither padding nor ends trains on texts as they are."""
    folder = tmp_path / "model"
    folder.mkdir()
    write_llama(folder)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    bare = {key: value for key, value in config.items() if key not in ("pad_token", "eos_token", "bos_token")}
    (folder / "tokenizer_config.json").write_text(json.dumps(bare))
    (folder / "special_tokens_map.json").unlink(missing_ok=True)
    run_job(spec_of(), folder, tmp_path, recorder, jsonl(texts(40)))
    before, after = (measured(recorder, phase) for phase in (EvaluationPhase.BEFORE, EvaluationPhase.AFTER))
    assert after[MetricName.EVAL_LOSS] < before[MetricName.EVAL_LOSS]


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
def test_a_bare_encoder_gets_a_head_that_the_adapter_trains(tmp_path, new_recorder):
    """A BERT without a masked head gets a fresh one; LoRA trains and exports it, and a second job goes on from it."""
    folder = tmp_path / "model"
    folder.mkdir()
    write_tiny_masked(folder)
    model = transformers.AutoModelForMaskedLM.from_pretrained(folder)
    model.bert.save_pretrained(folder)
    rows = jsonl(
        " ".join(random.Random(n).choices(["The", "river", "house", "garden", "kind"], k=8)) for n in range(60)
    )
    lora = {"lora": {"target_modules": ["query", "value"]}}
    first = run_job(spec_of(adapter=lora, n_epochs=16), folder, tmp_path, new_recorder(), rows)
    before, after = (measured(first, phase) for phase in (EvaluationPhase.BEFORE, EvaluationPhase.AFTER))
    assert after[MetricName.EVAL_LOSS] < before[MetricName.EVAL_LOSS] - 0.3
    config = json.loads(read_bundle(io.BytesIO(first.bundles[-1]))["adapter_config.json"])
    assert {"cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm"} == set(config["modules_to_save"])
    second = run_job(spec_of(adapter=lora), folder, tmp_path, new_recorder(), rows, layer=first.bundles[-1])
    again = measured(second, EvaluationPhase.BEFORE)
    assert after[MetricName.EVAL_LOSS] == pytest.approx(again[MetricName.EVAL_LOSS], abs=1e-5)
