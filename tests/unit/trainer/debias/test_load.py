# SPDX-License-Identifier: Apache-2.0
"""Subjects from folders: base models, adapters on them, whole folders in their place, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from cloister_workers.errors import TrainerError
from cloister_workers.messages import FailureCode
from cloister_workers.trainer.adapt import attach_lora
from cloister_workers.trainer.debias.kinds import ModelKind
from cloister_workers.trainer.debias.subjects.load import load_subject, weights_digest
from cloister_workers.trainer.export import export_files
from cloister_workers.trainer.model import load_classifier
from cloister_workers.trainer.spec import Lora

LABELS = ("no", "perhaps", "yes")
TEXTS = ["alpha bravo", "golf hotel india juliett", "echo"]


def load(kind, directory, layer=None, scratch="/tmp", **settings):
    return load_subject(kind, str(directory), layer, str(scratch), torch.device("cpu"), lambda: None, **settings)


def tokenizer_of(directory):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(directory)


@pytest.fixture(scope="module")
def adapter(bert_dir, tmp_path_factory):
    """A peft classifier on the tiny encoder as another job would export it, and its logits."""
    torch.manual_seed(1)
    base = load_classifier(str(bert_dir), LABELS, 0, torch.device("cpu"))
    model = attach_lora(base, Lora(rank=2, target_modules=("query",)))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    tokenizer = tokenizer_of(bert_dir)
    files = export_files(model, tokenizer, "base", str(tmp_path_factory.mktemp("scratch")))
    model.eval()
    with torch.no_grad():
        logits = np.concatenate(
            [model(**tokenizer(text, return_tensors="pt")).logits.double().numpy() for text in TEXTS]
        )
    return files, logits


def test_an_adapter_makes_the_classifier_that_was_exported(bert_dir, adapter, tmp_path):
    """Labels come in the order of the export, logits are those of the exporting process, and the mode is evaluation."""
    files, logits = adapter
    subject = load(ModelKind.CLASSIFIER, bert_dir, files, tmp_path)
    assert subject.labels == LABELS
    assert not subject.model.training
    np.testing.assert_allclose(subject.logits(TEXTS), logits, atol=1e-5)
    assert list(tmp_path.iterdir()) == []


def test_an_adapter_is_open_to_training_on_request_alone(bert_dir, adapter):
    """Only with `trainable` do the adapter's tensors and the saved head take gradients; the base never does."""
    closed = load(ModelKind.CLASSIFIER, bert_dir, adapter[0])
    opened = load(ModelKind.CLASSIFIER, bert_dir, adapter[0], trainable=True)
    assert not any(parameter.requires_grad for parameter in closed.model.parameters())
    names = [name for name, parameter in opened.model.named_parameters() if parameter.requires_grad]
    assert names
    assert all("lora_" in name or "modules_to_save" in name for name in names)


def test_a_merged_version_stands_in_place_of_the_base(bert_dir, adapter, tmp_path):
    """The whole folder of a merged model loads without looking at the base, to the same logits."""
    subject = load(ModelKind.CLASSIFIER, bert_dir, adapter[0], tmp_path)
    merged = subject.model.merge_and_unload()
    files = export_files(merged, subject.tokenizer, "base", str(tmp_path))
    found = load(ModelKind.CLASSIFIER, tmp_path / "nowhere", files, tmp_path)
    assert found.labels == LABELS
    np.testing.assert_allclose(found.logits(TEXTS), adapter[1], atol=1e-5)


def test_language_models_load(bert_dir, llama_dir, tmp_path):
    """A causal and a masked language model load as their subjects, the latter only where its output layer is there."""
    from transformers import BertConfig, BertForMaskedLM

    assert load(ModelKind.CAUSAL, llama_dir).token_log_probs(["alpha bravo"])[0].shape[0] >= 1
    tokenizer = tokenizer_of(bert_dir)
    tokenizer.mask_token = "[EOS]"
    tokenizer.save_pretrained(tmp_path)
    BertForMaskedLM(BertConfig.from_pretrained(bert_dir)).save_pretrained(tmp_path)
    assert load(ModelKind.MASKED, tmp_path).encode("alpha bravo")
    with pytest.raises(TrainerError) as caught:
        load(ModelKind.MASKED, bert_dir)
    assert caught.value.code is FailureCode.MODEL_INVALID


def without(files, name):
    return {key: content for key, content in files.items() if key != name}


def edited(files, name, **values):
    return {**files, name: json.dumps({**json.loads(files[name]), **values}).encode()}


@pytest.mark.parametrize(
    "damage",
    [
        lambda files: without(files, "adapter_model.safetensors"),
        lambda files: without(files, "config.json"),
        lambda files: {**files, "adapter_model.safetensors": files["adapter_model.safetensors"][:500]},
        lambda files: {**files, "adapter_config.json": b"[]"},
        lambda files: {**files, "config.json": b"{"},
        lambda files: edited(files, "config.json", id2label={"0": "no", "7": "yes"}),
        lambda files: edited(files, "adapter_config.json", target_modules=["nothing"]),
        lambda files: edited(files, "adapter_config.json", target_modules=["query", "key"]),
        lambda files: edited(files, "adapter_config.json", modules_to_save=["pooler"]),
        lambda files: {**files, "../x": b""},
    ],
)
def test_a_damaged_adapter_is_refused(bert_dir, adapter, tmp_path, damage):
    """Files that are missing, cut short or of another model fail with MODEL_INVALID and leave nothing behind."""
    with pytest.raises(TrainerError) as caught:
        load(ModelKind.CLASSIFIER, bert_dir, damage(adapter[0]), tmp_path)
    assert caught.value.code is FailureCode.MODEL_INVALID
    assert list(tmp_path.iterdir()) == []


def test_a_base_without_a_trained_head_is_no_classifier(bert_dir, tmp_path):
    """An encoder whose head would be random numbers, and an empty folder, are refused."""
    for directory in (bert_dir, tmp_path):
        with pytest.raises(TrainerError) as caught:
            load(ModelKind.CLASSIFIER, directory)
        assert caught.value.code is FailureCode.MODEL_INVALID


def test_the_digest_of_weights_sees_every_tensor(bert_dir, adapter):
    """It is equal for one version loaded twice and differs after any bit of base, adapter, head or buffer changed."""
    first, second = (load(ModelKind.CLASSIFIER, bert_dir, adapter[0]) for _ in range(2))
    assert weights_digest(first) == weights_digest(second)
    seen = {weights_digest(first)}
    tensors = [*first.model.named_parameters(), *first.model.named_buffers()]
    for part in ("word_embeddings", "lora_B", "modules_to_save.default", "position_ids"):
        tensor = next(tensor for name, tensor in tensors if part in name)
        with torch.no_grad():
            tensor.flatten()[-1] += 1
        seen.add(weights_digest(first))
    assert len(seen) == 5


def test_the_digest_knows_structure(bert_dir):
    """A matrix and its transpose are not the same weights."""
    from dataclasses import replace

    subject = load(ModelKind.ENCODER, bert_dir)
    flat, tall = torch.nn.Linear(2, 3, bias=False), torch.nn.Linear(3, 2, bias=False)
    with torch.no_grad():
        tall.weight.copy_(flat.weight.reshape(2, 3))
    assert weights_digest(replace(subject, model=flat)) != weights_digest(replace(subject, model=tall))
