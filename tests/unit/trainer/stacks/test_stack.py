# SPDX-License-Identifier: Apache-2.0
"""The layers of a version: which they are, how they make a prompt, and that each job takes what it needs of them."""

from __future__ import annotations

import io
import json
import os
from typing import Any

import pytest
import torch

from cloister_workers.errors import SpecError, TrainerError
from cloister_workers.messages import DatasetRole, FailureCode, SpecField
from cloister_workers.trainer.bundle import read_bundle, write_bundle
from cloister_workers.trainer.layer import LayerKind, kind_of
from cloister_workers.trainer.model import load_tokenizer
from cloister_workers.trainer.prompts import prompt_tokens
from cloister_workers.trainer.stack.chunks import Chunk
from cloister_workers.trainer.stack.composer import CITE, Composer, Question, joined
from cloister_workers.trainer.stack.demonstrations import Demonstrations, Selection, read_demonstrations
from cloister_workers.trainer.stack.index import Index
from cloister_workers.trainer.stack.layers import read_stack
from cloister_workers.trainer.stack.shots import Shot
from copying_model import ENTITIES, question, write_word_encoder
from stack_jobs import jsonl

SHOWN = {"in_context": {"selection": "nearest", "shots": 2, "max_seq_length": 100, "max_new_tokens": 4}}
RETRIEVAL = {"retrieval": {"chunk_tokens": 16, "overlap": 2, "top_k": 2, "max_new_tokens": 4}}
ROWS = jsonl([{"prompt": question(entity), "completion": " a6"} for entity in ENTITIES[:12]])
DOCUMENTS = jsonl([{"text": f"{entity} is the colour a2"} for entity in ENTITIES[:12]])
SUPERVISED = {"supervised": {"hyperparameters": {"n_epochs": 1, "batch_size": 8, "max_seq_length": 32}}}
INFERENCE = {"inference": {"max_seq_length": 64, "max_new_tokens": 4}}


@pytest.fixture
def layers(bench):
    """An adapter, an index on it, demonstrations on both."""
    adapter = bench.run(SUPERVISED, training=ROWS).bundle
    index = bench.run(RETRIEVAL, training=DOCUMENTS, layer=adapter).bundle
    shown = bench.run(SHOWN, training=ROWS, layer=adapter, layer_2=index).bundle
    return {"layer": adapter, "layer_2": index, "layer_3": shown}


def streams(**layers: bytes) -> dict[DatasetRole, io.BytesIO]:
    return {DatasetRole(name): io.BytesIO(content) for name, content in layers.items()}


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (["adapter_config.json", "adapter_model.safetensors", "config.json"], LayerKind.ADAPTER),
        (["config.json", "model.safetensors"], LayerKind.MERGED_WEIGHTS),
        (["retrieval.json", "chunks.json", "vectors.safetensors"], LayerKind.RETRIEVAL_INDEX),
        (["demonstrations.json", "vectors.safetensors"], LayerKind.DEMONSTRATIONS),
    ],
)
def test_files_tell_the_class_of_a_layer(names, kind):
    """A layer's class shows in the names of its files."""
    assert kind == kind_of(names)


def test_a_version_is_read_in_order_and_in_part(layers, tmp_path):
    """All layers, the first few, and single ones are told apart."""
    stack = read_stack(streams(**layers), str(tmp_path))
    kinds = (LayerKind.ADAPTER, LayerKind.RETRIEVAL_INDEX, LayerKind.DEMONSTRATIONS)
    assert kinds == stack.kinds
    assert [kinds[:count] for count in range(4)] == [stack.first(count).kinds for count in range(4)]
    assert (kinds[1],) == stack.only(kinds[1]).kinds
    assert 2 == len(stack.encoders)
    assert (False, True, True) == tuple(stack.only(kind).prompts for kind in kinds)


@pytest.mark.parametrize("order", [("layer_2", "layer"), ("layer_3", "layer_2"), ("layer", "layer")])
def test_layers_out_of_order_or_twice_are_refused(layers, tmp_path, order):
    """A version has weights, then an index, then demonstrations, each once."""
    first, second = (layers[name] for name in order)
    with pytest.raises(TrainerError) as caught:
        read_stack(streams(layer=first, layer_2=second), str(tmp_path))
    assert FailureCode.MODEL_INVALID == caught.value.code


@pytest.mark.parametrize("name", ["retrieval.json", "chunks.json", "vectors.safetensors", "demonstrations.json"])
def test_damaged_layers_are_refused(layers, tmp_path, name):
    """A layer whose files do not go together is MODEL_INVALID, whichever file is damaged."""
    given = layers["layer_3" if name == "demonstrations.json" else "layer_2"]
    files = read_bundle(io.BytesIO(given))
    with os.fdopen(write_bundle(files | {name: b"[1, 2"}), "rb") as stream:
        damaged = stream.read()
    with pytest.raises(TrainerError) as caught:
        read_stack(streams(layer=damaged), str(tmp_path))
    assert FailureCode.MODEL_INVALID == caught.value.code


def test_vectors_of_another_encoder_are_refused(bench, layers, tmp_path, new_recorder):
    """A job that names another encoder than made the version's vectors, or none, is refused before any work."""
    asked = jsonl([{"prompt": "e1"}])
    other = write_word_encoder(tmp_path / "other", seed=4)
    for encoder in (other, None):
        job = type(bench)(bench.model, bench.scratch, new_recorder, encoder)
        with pytest.raises(SpecError) as caught:
            job.run(INFERENCE, evaluation=asked, **layers)
        assert SpecField.AUXILIARY_MODEL == caught.value.field
    assert 1 == len(bench.run(INFERENCE, evaluation=asked, **layers).files["predictions.jsonl"].splitlines())


def test_training_from_a_stacked_version_takes_its_weights(bench, layers):
    """A training job goes on with the adapter of a stacked version, and begins afresh where a stack has no weights."""
    alone = bench.run(SUPERVISED, training=ROWS, layer=layers["layer"])
    stacked = bench.run(SUPERVISED, training=ROWS, **layers)
    assert alone.bundle == stacked.bundle
    fresh = bench.run(SUPERVISED, training=ROWS)
    bare = bench.run(SUPERVISED, training=ROWS, layer=layers["layer_2"], layer_2=layers["layer_3"])
    assert fresh.bundle == bare.bundle
    assert fresh.bundle != alone.bundle


# ---------------------------------------------------------------- prompts
TEXT = Shot("q1 ", "a1")
CHAT = Shot([{"role": "user", "content": "q2"}], [{"role": "assistant", "content": "a2"}])
ASKED = [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}]


def test_a_text_is_preceded_by_demonstrations_then_numbered_passages():
    """Of plain texts the prompt is one text, with an empty line between its parts."""
    assert "q1 a1\n\n[1] p\n[2] r\n\nq" == joined("q", [TEXT], ["p", "r"])
    assert "q" == joined("q", [], [])


def test_a_chat_gets_turns_and_passages_in_its_last_message():
    """Of a chat demonstrations are turns behind the system's message, passages part of the user's last one."""
    turns = [{"role": "user", "content": "q2"}, {"role": "assistant", "content": "a2"}]
    told = {"role": "user", "content": f"{CITE}\n[1] p\n\nq"}
    assert [ASKED[0], *turns, told] == joined(ASKED, [CHAT], ["p"])
    assert [*turns, {"role": "user", "content": "q"}] == joined("q", [CHAT], [])
    assert [ASKED[0], {"role": "user", "content": "q1"}, {"role": "assistant", "content": "a1"}, ASKED[1]] == joined(
        ASKED, [TEXT], []
    )


class _Nearest:
    """Finds passages in the order of their numbers."""

    def questions(self, texts):
        return torch.tensor([[1.0]] * len(texts))


@pytest.mark.parametrize(
    ("room", "kept"), [(34, (2, 2)), (33, (1, 2)), (20, (0, 2)), (14, (0, 1)), (8, (0, 0)), (1, (0, 0))]
)
def test_what_does_not_fit_is_dropped_farthest_first(copier_dir, room, kept):
    """Demonstrations go first, then passages from the last; the question stays whole, what is dropped is counted."""
    shots = tuple(Shot(f"{question(entity)}\nAnswer:", " a1") for entity in ("e1", "e2"))
    chunks = tuple(Chunk(0, 0, 1, "e1 is the colour") for _ in range(2))
    index = Index(("d",), chunks, torch.tensor([[1.0], [0.9]]).half(), "digest", 2, {})
    tokenizer = load_tokenizer(str(copier_dir))
    nearest: Any = _Nearest()
    composer = Composer(tokenizer, index, Demonstrations(Selection.RANDOM, 2, shots), nearest)
    asked = f"{question('e9')}\nAnswer:"
    (made,) = composer.compose([Question(asked, room)])
    assert kept == (made.shots, len(made.chunks))
    assert (tuple(range(kept[1])), 4 - sum(kept)) == (made.chunks, made.dropped)
    assert str(made.prompt).endswith(asked)
    assert len(prompt_tokens(tokenizer, made.prompt)) <= max(room, len(prompt_tokens(tokenizer, asked)))
    if kept[0] == 1:
        assert "e2" in made.prompt


def test_no_question_is_shown_its_own_answer():
    """A demonstration of the very question is left out, and the next nearest takes its place."""
    shots = tuple(Shot(f"q{number}", f"a{number}") for number in range(3))
    vectors = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]]).half()
    shown = Demonstrations(Selection.NEAREST, 2, shots, vectors, "digest")
    asked = torch.tensor([1.0, 0.0])
    assert [shots[1], shots[0]] == shown.shown(asked)
    assert [shots[2], shots[1]] == shown.shown(asked, {shots[0].group})
    assert [shots[1]] == Demonstrations(Selection.RANDOM, 2, shots[:2]).shown(None, {shots[0].group})


def test_demonstrations_survive_their_files(layers, tmp_path):
    """What is written is what is read, chats included."""
    made = Demonstrations(Selection.RANDOM, 2, (TEXT, CHAT))
    assert {"demonstrations.json"} == set(made.files())
    assert made == read_demonstrations(made.files())
    assert json.loads(made.files()["demonstrations.json"])["examples"][0] == {"prompt": "q1 ", "completion": "a1"}
