# SPDX-License-Identifier: Apache-2.0
"""Inference jobs by encoders with a head over tokens: tags of tokens, and where in a context an answer stands."""

from __future__ import annotations

import json
import random

import pytest
import torch
import transformers

from cloister_workers.errors import RowsRefused, SpecError, TrainerError
from cloister_workers.messages import FailureCode, MetricName, RowReason, SpecField
from stack_jobs import jsonl

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
TAGS = ("B-NAME", "B-PLACE", "I-PLACE", "O")
WORDS = ("alpha", "bravo", "charlie", "delta", "echo", "foxtrot", "golf", "hotel", "india", "juliett")


@pytest.fixture
def asked(bench, bert_dir, tmp_path, new_recorder):
    """Runs inference of a task over rows on a drawn model of this class, and gives the lines."""

    def run(kind, task, rows, recorder=None, **settings):
        folder = tmp_path / "headed"
        torch.manual_seed(3)
        names = dict(enumerate(TAGS)) if kind is transformers.AutoModelForTokenClassification else {0: "0", 1: "1"}
        kind.from_pretrained(bert_dir, id2label=names, num_labels=len(names)).save_pretrained(folder)
        transformers.AutoTokenizer.from_pretrained(bert_dir).save_pretrained(folder)
        done = type(bench)(folder, tmp_path, lambda: recorder or new_recorder()).run(
            {"inference": {"task": task, "batch_size": 3, **settings}}, evaluation=jsonl(rows)
        )
        return [json.loads(line) for line in done.files["predictions.jsonl"].splitlines()]

    return run


def test_tags_are_those_of_plain_transformers(asked, tmp_path):
    """Each token has the tag of its first sub-token as plain transformers finds it, rows of all lengths mixed."""
    rows = [{"tokens": [WORDS[(start * 3 + step) % 10] for step in range(start % 4 + 1)]} for start in range(7)]
    rows[2]["tokens"][0] = "alpha:bravo"  # three sub-tokens
    lines = asked(transformers.AutoModelForTokenClassification, "tag", [*rows, {"text": " delta\n echo "}])
    model = transformers.AutoModelForTokenClassification.from_pretrained(tmp_path / "headed").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "headed")
    for row, line in zip([*rows, {"tokens": ["delta", "echo"]}], lines, strict=True):
        encoded = tokenizer(row["tokens"], is_split_into_words=True, return_tensors="pt")
        said = model(input_ids=encoded["input_ids"]).logits.argmax(-1)[0].tolist()
        owners = encoded.word_ids()
        expected = [TAGS[said[owners.index(word)]] for word in range(len(row["tokens"]))]
        assert (row["tokens"], expected, 0) == (line["tokens"], line["tags"], line["unread"])
    assert list(range(1, 9)) == [line["row"] for line in lines]
    assert len({tag for line in lines for tag in line["tags"]}) > 1


def test_tokens_beyond_the_cut_are_counted(asked):
    """A token that max_seq_length leaves out is O and counted, so that nobody takes it for read."""
    (line,) = asked(
        transformers.AutoModelForTokenClassification, "tag", [{"tokens": list(WORDS[:6])}], max_seq_length=4
    )
    unread = line["unread"]
    assert 0 < unread < 6
    assert ["O"] * unread == line["tags"][-unread:]
    assert 6 == len(line["tags"])


def test_a_trained_adapter_tags(bench, bert_dir, tmp_path, new_recorder):
    """A version that token classification made tags as well as its evaluation says, and answers no questions."""
    tuned = type(bench)(bert_dir, tmp_path, new_recorder)
    drawn = random.Random(4)
    rows = []
    for _ in range(80):
        words = [drawn.choice(("charlie", *WORDS[3:])) for _ in range(drawn.randint(2, 4))]
        rows.append({"tokens": words, "tags": ["B-NAME" if word == "charlie" else "O" for word in words]})
    settings = {"n_epochs": 8, "batch_size": 8, "max_seq_length": 32, "learning_rate": 0.02}
    version = tuned.run({"token_classification": {"hyperparameters": settings}}, training=jsonl(rows)).bundle
    measured = tuned.run({"evaluation": {"task": "token_classification"}}, evaluation=jsonl(rows), layer=version)
    done = tuned.run({"inference": {"task": "tag"}}, evaluation=jsonl(rows), layer=version)
    said = [tag for line in done.files["predictions.jsonl"].splitlines() for tag in json.loads(line)["tags"]]
    true = [tag for row in rows for tag in row["tags"]]
    share = sum(one == other for one, other in zip(said, true, strict=True)) / len(true)
    assert share == pytest.approx(measured.phases()["after", 1][MetricName.EVAL_TOKEN_ACCURACY])
    assert share > 0.9
    with pytest.raises(SpecError) as caught:
        tuned.run(
            {"inference": {"task": "answer"}},
            evaluation=jsonl([{"context": "delta", "question": "echo"}]),
            layer=version,
        )
    assert FailureCode.ADAPTER_INVALID == caught.value.code


def test_answers_are_those_of_plain_transformers(asked, tmp_path):
    """The answer is the span with the most of start and end logits, empty where the first token has as much, and the
    score says by how much.
    """
    contexts = [" ".join(WORDS[(start * 7 + step * 3) % 10] for step in range(4 + start)) for start in range(8)]
    rows = [{"context": context, "question": WORDS[place]} for place, context in enumerate(contexts)]
    lines = asked(transformers.AutoModelForQuestionAnswering, "answer", rows, max_new_tokens=3)
    model = transformers.AutoModelForQuestionAnswering.from_pretrained(tmp_path / "headed").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "headed")
    for row, line in zip(rows, lines, strict=True):
        encoded = tokenizer(row["question"], row["context"], return_offsets_mapping=True, return_tensors="pt")
        offsets, parts = encoded.pop("offset_mapping")[0].tolist(), encoded.sequence_ids(0)
        said = model(**encoded)
        starts, ends = said.start_logits[0].tolist(), said.end_logits[0].tolist()
        inside = [place for place, part in enumerate(parts) if part == 1]
        score, low, high = max((starts[i] + ends[j], i, j) for i in inside for j in inside if i <= j < i + 3)
        margin = score - starts[0] - ends[0]
        start, end = (offsets[low][0], offsets[high][1]) if margin > 0 else (0, 0)
        assert (row["context"][start:end], start, end) == (line["answer"], line["start"], line["end"])
        assert margin == pytest.approx(line["score"], abs=1e-5)
    assert {True, False} == {bool(line["answer"]) for line in lines}


def test_long_contexts_are_read_in_windows(asked):
    """An answer may come from behind max_seq_length tokens, and its characters are those of the whole context."""
    context = "delta " * 30 + "juliett"
    lines = asked(
        transformers.AutoModelForQuestionAnswering,
        "answer",
        [{"context": context, "question": "echo"}, {"context": "golf", "question": "echo"}],
        max_seq_length=12,
    )
    assert [1, 2] == [line["row"] for line in lines]
    assert all(
        line["answer"] == text[line["start"] : line["end"]] for line, text in zip(lines, (context, "golf"), strict=True)
    )


@pytest.mark.parametrize("task", ["tag", "answer"])
def test_a_model_without_the_head_is_refused(bench, bert_dir, tmp_path, new_recorder, task):
    """A base model, whose head would be drawn at random, answers nothing; nor does a model that is no encoder."""
    rows = jsonl([{"text": "alpha", "context": "alpha", "question": "bravo"}])
    with pytest.raises(SpecError) as caught:
        type(bench)(bert_dir, tmp_path, new_recorder).run({"inference": {"task": task}}, evaluation=rows)
    assert SpecField.TASK == caught.value.field
    with pytest.raises(TrainerError) as refused:
        bench.run({"inference": {"task": task}}, evaluation=rows)
    assert FailureCode.MODEL_INVALID == refused.value.code


@pytest.mark.parametrize(
    ("kind", "task", "rows", "errors"),
    [
        (
            transformers.AutoModelForTokenClassification,
            "tag",
            [{"tokens": ["alpha"]}, {"tokens": "alpha"}, {"label": "alpha"}, {"text": " "}],
            [(2, RowReason.WRONG_TYPE), (3, RowReason.MISSING_KEY), (4, RowReason.EMPTY_TEXT)],
        ),
        (
            transformers.AutoModelForQuestionAnswering,
            "answer",
            [{"question": "alpha"}, {"context": "alpha", "question": "bravo " * 1100}],
            [(1, RowReason.MISSING_KEY), (2, RowReason.TOO_LONG)],
        ),
    ],
)
def test_rows_that_cannot_be_read_are_refused_by_number(asked, new_recorder, kind, task, rows, errors):
    """Rows without tokens or without a context, and a question that leaves it no room, are refused by number."""
    recorder = new_recorder()
    with pytest.raises(RowsRefused):
        asked(kind, task, rows, recorder)
    assert tuple(errors) == recorder.messages[-1].errors
