# SPDX-License-Identifier: Apache-2.0
"""Retrieval jobs: what is found, what it does to answers, and what is refused."""

from __future__ import annotations

import io
import json
import os
from typing import Any

import peft
import pytest
import safetensors.torch
import torch
import transformers

from cloister_workers.errors import RowsRefused, SpecError
from cloister_workers.messages import DatasetRole, MetricName, Result, RowErrors, RowReason, SpecField
from cloister_workers.trainer.bundle import write_bundle
from cloister_workers.trainer.method import AuxiliaryModel
from cloister_workers.trainer.stack.chunks import Chunk, Document
from cloister_workers.trainer.stack.encoder import load_encoder
from cloister_workers.trainer.stack.layers import read_stack
from cloister_workers.trainer.stack.questions import QuestionReader
from copying_model import ANSWERS, ENTITIES, question
from stack_jobs import Bench, jsonl

RETRIEVAL = {"retrieval": {"chunk_tokens": 16, "overlap": 2, "top_k": 1, "max_new_tokens": 4}}
COLOURS = {entity: ANSWERS[(place * 7 + 3) % len(ANSWERS)] for place, entity in enumerate(ENTITIES[:24])}
DOCUMENTS = jsonl([{"id": entity, "text": f"{entity} is the colour {colour}"} for entity, colour in COLOURS.items()])
QUESTIONS = jsonl(
    [{"question": question(entity), "answer": colour, "relevant": entity} for entity, colour in COLOURS.items()]
)


def test_passages_are_found_and_answers_get_better(bench):
    """With the index the documents asked about are found, and answers are better than without, beyond the intervals."""
    done = bench.run(RETRIEVAL, training=DOCUMENTS, evaluation=QUESTIONS)
    before, after = done.phases()["before", 0], done.phases()["after", 0]
    assert MetricName.EVAL_RECALL_AT_1 not in before
    assert 1.0 == after[MetricName.EVAL_RECALL_AT_1] == after[MetricName.EVAL_RECALL_AT_K] == after[MetricName.EVAL_MRR]
    assert after[MetricName.EVAL_LOSS_CI_HIGH] < before[MetricName.EVAL_LOSS_CI_LOW]
    assert after[MetricName.EVAL_EXACT_MATCH_CI_LOW] > before[MetricName.EVAL_EXACT_MATCH_CI_HIGH]
    assert after[MetricName.EVAL_F1_CI_LOW] > before[MetricName.EVAL_F1_CI_HIGH]
    result = done.recorder.messages[-1]
    assert isinstance(result, Result)
    assert 24.0 == result.metrics[MetricName.CHUNKS]


def test_an_index_says_where_each_passage_stands(bench):
    """Passages are cut from their documents letter by letter, share the overlap, and cover every token once more."""
    text = " ".join(ENTITIES[:37])
    rows = jsonl([{"id": "long", "text": text, "title": "colour"}, {"text": "e39  is\n a1"}])
    files = bench.run(RETRIEVAL, training=rows).files
    table, texts = json.loads(files["retrieval.json"]), json.loads(files["chunks.json"])
    assert ["long", "2"] == table["documents"]
    places = [(start, end) for document, start, end in table["chunks"] if document == 0]
    assert [f"colour: {text[start:end]}" for start, end in places] == texts[: len(places)]
    words = [text[start:end].split() for start, end in places]
    assert [14, 14, 13] == [len(part) for part in words]
    assert words[0][-2:] == words[1][:2]
    assert words[1][-2:] == words[2][:2]
    assert "e39  is\n a1" == texts[-1]


def test_search_equals_cosines_by_hand(bench):
    """The nearest passages are those of the largest cosines of the encoder's vectors."""
    layer = bench.run(RETRIEVAL, training=DOCUMENTS).bundle
    index: Any = read_stack({DatasetRole.LAYER: io.BytesIO(layer)}, str(bench.scratch)).index
    encoder = load_encoder(AuxiliaryModel(str(bench.encoder), ""), torch.device("cpu"), lambda: None)
    queries = encoder.questions([question("e3"), question("e11")])
    cosines = torch.nn.functional.cosine_similarity(queries[:, None], index.vectors.float()[None], dim=-1)
    expected = cosines.argsort(dim=1, descending=True)[:, :5].tolist()
    found = index.search(queries, 5)
    assert expected == [[hit.chunk for hit in hits] for hits in found]
    assert cosines[0, expected[0]].tolist() == pytest.approx([hit.score for hit in found[0]], abs=1e-3)


def test_bad_documents_and_questions_are_refused_by_number(bench):
    """Documents without text or with an id twice, and questions about no document, are refused with their numbers."""
    rows = jsonl(
        [{"id": "x", "text": "e1"}, {"title": "e2"}, {"id": "x", "text": "e3"}, {"text": "e4", "title": "e " * 9}]
    )
    recorder = bench.new_recorder()
    with pytest.raises(RowsRefused):
        Bench(bench.model, bench.scratch, lambda: recorder, bench.encoder).run(RETRIEVAL, training=rows)
    (told,) = [message for message in recorder.messages if isinstance(message, RowErrors)]
    assert ((2, RowReason.MISSING_KEY), (3, RowReason.DUPLICATE), (4, RowReason.TOO_LONG)) == told.errors
    asked = jsonl([{"question": "e1", "relevant": "e0"}, {"question": "e1", "relevant": "nowhere"}, {"question": "e1"}])
    recorder = bench.new_recorder()
    with pytest.raises(RowsRefused):
        Bench(bench.model, bench.scratch, lambda: recorder, bench.encoder).run(
            RETRIEVAL, training=DOCUMENTS, evaluation=asked
        )
    (told,) = [message for message in recorder.messages if isinstance(message, RowErrors)]
    assert ((2, RowReason.ANSWER_NOT_FOUND), (3, RowReason.MISSING_KEY)) == told.errors


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
def test_the_encoder_may_be_an_adapted_version(bench, word_encoder_dir, tmp_path):
    """Vectors are those of the auxiliary version's adapter on its base, and the index names them as such."""
    base = transformers.AutoModel.from_pretrained(word_encoder_dir)
    config = peft.LoraConfig(r=2, target_modules=["query", "value"], task_type="FEATURE_EXTRACTION")
    adapted = peft.get_peft_model(base, config)
    torch.manual_seed(1)
    for name, weight in adapted.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(weight.data)
    adapted.save_pretrained(tmp_path / "adapter")
    base.config.save_pretrained(tmp_path / "adapter")
    files = {path.name: path.read_bytes() for path in (tmp_path / "adapter").iterdir() if path.suffix != ".md"}
    with os.fdopen(write_bundle(files), "rb") as stream:
        layer = stream.read()
    plain = bench.run(RETRIEVAL, training=DOCUMENTS)
    done = bench.run(RETRIEVAL, training=DOCUMENTS, auxiliary_layer=layer)
    names = [json.loads(job.files["retrieval.json"])["encoder"] for job in (plain, done)]
    assert names[0] != names[1]
    tokenizer = transformers.AutoTokenizer.from_pretrained(word_encoder_dir)
    ids = tokenizer("e0 is the colour a3", return_tensors="pt")["input_ids"]
    expected = torch.nn.functional.normalize(adapted.eval()(input_ids=ids).last_hidden_state[0].mean(0), dim=0)
    vectors = safetensors.torch.load(done.files["vectors.safetensors"])["vectors"]
    assert expected.tolist() == pytest.approx(vectors[0].float().tolist(), abs=1e-3)


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"overlap": 9}, SpecField.OVERLAP),
        ({"chunk_tokens": 65}, SpecField.CHUNK_TOKENS),
        ({"unheard": 1}, SpecField.METHOD),
    ],
)
def test_settings_that_do_not_fit_are_refused(bench, settings, field):
    """An overlap of more than half, passages longer than the encoder takes, and unknown settings are refused."""
    with pytest.raises(SpecError) as caught:
        bench.run({"retrieval": {**RETRIEVAL["retrieval"], **settings}}, training=DOCUMENTS)
    assert field == caught.value.field


def test_an_index_needs_an_encoder(bench):
    """A retrieval job without an auxiliary model is refused."""
    with pytest.raises(SpecError) as caught:
        Bench(bench.model, bench.scratch, bench.new_recorder).run(RETRIEVAL, training=DOCUMENTS)
    assert SpecField.AUXILIARY_MODEL == caught.value.field


A4 = {number for number, colour in enumerate(COLOURS.values()) if colour == "a4"}


@pytest.mark.parametrize(
    ("row", "right"),
    [
        ({"question": question("e2"), "context": "e2 is the colour"}, {2}),
        ({"question": question("e2"), "relevant": ["e2", "e4"]}, {2, 4}),
        ({"question": question("e2"), "answers": ["A4", "nothing"]}, A4),
        ({"prompt": question("e2"), "completion": " a4"}, A4),
    ],
)
def test_what_counts_as_found(row, right):
    """A passage is right by its document's id, by a context that the document holds, or by an answer that it holds."""
    documents = [Document(entity, f"{entity} is the colour {colour}") for entity, colour in COLOURS.items()]
    asked: Any
    (asked,) = QuestionReader(documents, chat=False).read([row])
    chunks = [Chunk(number, 0, len(document.text), document.text) for number, document in enumerate(documents)]
    assert right == {chunk.document for chunk in chunks if asked.is_right(chunk)}
