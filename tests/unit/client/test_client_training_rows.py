# SPDX-License-Identifier: Apache-2.0
"""Rows of training methods: checked before anything is sealed, and converted from the forms in which they come."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cloister.errors import RowsError, UsageError
from cloister.formats.shapes import SHAPES, check_of
from cloister.formats.stream import RowStream

USER = {"role": "user", "content": "q"}
ANSWER = {"role": "assistant", "content": "a"}
GOOD: dict[str, Any] = {
    "classification": [
        {"text": "a", "label": "b"},
        {"text": "a", "text_pair": "b", "label": 1},
        {"text": "a", "label": 0.5},
        {"text": "a", "labels": ["b", 2]},
        {"text": "a", "labels": []},
    ],
    "supervised": [
        {"messages": [USER, ANSWER], "tools": [{"type": "function"}]},
        {"messages": [USER, {"role": "assistant", "tool_calls": [{"function": {}}]}, {"role": "tool", "content": "r"}]},
        {"prompt": "a", "completion": "b"},
        {"prompt": [USER], "completion": [ANSWER]},
        {"source": "a", "target": "b"},
    ],
    "language_modeling": [{"text": "a"}],
    "token_classification": [{"tokens": ["Ada", "sat"], "tags": ["B-PER", "O"]}],
    "question_answering": [
        {"context": "a b", "question": "c", "answers": ["a", {"text": "b", "answer_start": 2}]},
        {"context": "a", "question": "c", "answers": []},
    ],
    "preference": [
        {"prompt": "a", "chosen": "b", "rejected": "c"},
        {"prompt": [USER], "chosen": [ANSWER], "rejected": [{**ANSWER, "content": "b"}]},
    ],
    "reward": [{"prompt": "a", "chosen": "b", "rejected": "c"}],
    "reinforcement": [{"prompt": "a", "answer": "b"}, {"prompt": [USER], "schema": {"type": "object"}}],
    "distillation": [{"text": "a"}, {"prompt": "a"}, {"prompt": "a", "completion": "b"}, {"messages": [USER, ANSWER]}],
    "embedding": [{"query": "a", "positive": "b"}, {"query": "a", "positive": "b", "negative": "c"}],
    "retrieval": [{"text": "a", "id": "1", "title": "b"}],
    "in_context": [
        {"question": "a", "answer": "b"},
        {"question": "a", "answer": ["b", "c"]},
        {"text": "a", "label": 1},
    ],
    "inference": [{"prompt": "a"}, {"messages": [USER]}, {"question": "a"}, {"text": "a"}],
}
BAD = [
    ("classification", {"text": "CANARY"}, "no label"),
    ("classification", {"text": "", "label": "a"}, "empty text"),
    ("classification", {"text": "CANARY", "label": True}, "label is neither text nor a number"),
    ("classification", {"text": "CANARY", "labels": ["a", None]}, "labels are no list of texts or whole numbers"),
    ("supervised", {"messages": []}, "messages is no list of messages"),
    ("supervised", {"messages": [USER]}, "no message of the assistant to learn in messages"),
    ("supervised", {"messages": [{"role": "CANARY", "content": "a"}]}, "a message of messages has no role of"),
    ("supervised", {"messages": [USER, {"role": "assistant", "content": " "}]}, "a message of messages has no content"),
    ("supervised", {"messages": [USER, {**ANSWER, "weight": 2}]}, "a weight in messages is neither 0 nor 1"),
    ("supervised", {"messages": [USER, {**ANSWER, "weight": 0}]}, "no message of the assistant to learn in messages"),
    ("supervised", {"messages": [USER, ANSWER], "tools": "CANARY"}, "tools are no list of objects"),
    ("supervised", {"prompt": "CANARY"}, "no text under completion"),
    ("supervised", {"source": "CANARY", "target": " "}, "empty target"),
    ("language_modeling", {"txt": "CANARY"}, "no text under text"),
    ("token_classification", {"tokens": ["a"], "tags": ["O", "O"]}, "1 tokens and 2 tags"),
    ("token_classification", {"tokens": ["a"], "tags": ["CANARY"]}, "a tag is neither O nor of the form"),
    ("token_classification", {"tokens": ["a", 1], "tags": ["O", "O"]}, "a token or tag is no text"),
    ("question_answering", {"context": "CANARY", "question": "b"}, "answers are no list"),
    ("question_answering", {"context": "a", "question": "b", "answers": [1]}, "an answer is no text"),
    (
        "question_answering",
        {"context": "a", "question": "b", "answers": [{"text": "a", "answer_start": "0"}]},
        "an answer_start is no whole number",
    ),
    ("preference", {"prompt": "CANARY", "chosen": "b"}, "no text under rejected"),
    ("preference", {"prompt": "a", "chosen": "CANARY", "rejected": "CANARY"}, "chosen and rejected are the same"),
    ("preference", {"prompt": "a", "chosen": [ANSWER], "rejected": "b"}, "not all texts, or all messages"),
    ("preference", {"prompt": "a", "completion": "CANARY", "label": 1}, "label is neither true nor false"),
    ("reward", {"prompt": "a", "completion": "b", "label": True}, "no text under chosen"),
    ("reinforcement", {"prompt": "CANARY", "answer": 1}, "no text under answer"),
    ("reinforcement", {"prompt": "CANARY", "schema": "x"}, "schema is no JSON schema"),
    ("distillation", {"text": 1}, "no text under text"),
    ("distillation", {"prompt": 1}, "no text under prompt"),
    ("retrieval", {"text": ""}, "empty text"),
    ("in_context", {"question": "CANARY", "answer": ["b", ""]}, "empty answer"),
    ("in_context", {"text": "CANARY"}, "no label"),
    ("inference", {"messages": "CANARY"}, "messages is no list of messages"),
    ("inference", {"instruction": "CANARY"}, "no text under prompt"),
    ("embedding", {"query": "CANARY", "positive": "b", "negative": ""}, "empty negative"),
]


def write(folder, name, rows):
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def converted(path, format_name=""):
    return [json.loads(line) for line in RowStream([path], format_name).lines()]


def refusal(path, format_name=""):
    with pytest.raises(RowsError) as refused:
        RowStream([path], format_name).check()
    assert "CANARY" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize("method", SHAPES)
def test_good_rows_are_sealed_byte_for_byte(tmp_path, method):
    """Rows of each method pass its check, named or told by their look, and are not touched."""
    path = write(tmp_path, "r.jsonl", GOOD[method])
    for name in (method, ""):
        assert path.read_bytes() == b"".join(RowStream([path], name).lines())


@pytest.mark.parametrize(("method", "row", "reason"), BAD)
def test_a_bad_row_is_refused_by_its_number(tmp_path, method, row, reason):
    """The first row is good and the third is not: its line and a fixed reason are told, and nothing that it says."""
    path = tmp_path / "r.jsonl"
    path.write_text(f"{json.dumps(GOOD[method][0])}\n\n{json.dumps(row)}\n")
    message = refusal(path, method)
    assert "1 of 2 rows are bad: line 3" in message
    assert reason in message


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"messages": [USER, ANSWER]}, {"mesages": [USER, ANSWER]}),
        ({"prompt": "a", "completion": "b"}, {"prompt": "a"}),
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, {"prompt": "a", "chosen": "b"}),
        ({"prompt": "a", "completion": "b", "label": True}, {"prompt": "a", "completion": "b"}),
        ({"tokens": ["a"], "tags": ["O"]}, {"tokens": ["a"]}),
        ({"context": "a", "question": "b", "answers": ["a"]}, {"context": "a", "question": "b"}),
        ({"query": "a", "positive": "b"}, {"query": "a"}),
        ({"text": "a", "label": "b"}, {"text": "a"}),
        ({"source": "a", "target": "b"}, {"source": "a"}),
    ],
)
def test_the_first_row_tells_what_the_others_must_be(tmp_path, first, second):
    """Without a named format a row is refused that is not what the first one is."""
    assert "1 of 2 rows are bad: line 2" in refusal(write(tmp_path, "r.jsonl", [first, second]))


def test_answers_with_a_verdict_are_rows_of_preference(tmp_path):
    """What `kto` learns from passes the check of its method, and tells itself."""
    path = write(tmp_path, "r.jsonl", [{"prompt": "a", "completion": "b", "label": wanted} for wanted in (True, False)])
    for name in ("preference", ""):
        assert path.read_bytes() == b"".join(RowStream([path], name).lines())


@pytest.mark.parametrize(
    ("method", "settings", "good", "bad"),
    [
        ("preference", {"loss": "kto"}, {"prompt": "a", "completion": "b", "label": True}, GOOD["reward"][0]),
        ("preference", {"loss": "dpo"}, GOOD["reward"][0], {"prompt": "a", "completion": "b", "label": True}),
        ("evaluation", {"task": "embedding"}, GOOD["embedding"][0], {"text": "a"}),
        ("inference", {"task": "embed"}, {"text": "a"}, {"prompt": "a"}),
        ("inference", {"task": "generate"}, {"prompt": "a"}, {"answer": "a"}),
        ("inference", {"task": "tag"}, {"tokens": ["a"]}, {"tokens": "a"}),
        ("inference", {"task": "tag"}, {"text": "a"}, {"prompt": "a"}),
        ("inference", {"task": "answer"}, {"context": "a", "question": "b"}, {"question": "b"}),
    ],
)
def test_settings_say_what_rows_a_method_takes(method, settings, good, bad):
    """The loss of a preference and the task of an evaluation or inference decide."""
    check = check_of(method, settings)
    assert check is not None
    assert check(good) is None
    assert check(bad) is not None


def test_rows_of_de_biasing_have_no_one_form():
    """They are of many kinds, which the job's own measures read."""
    assert check_of("debias", {}) is None


def test_rows_may_be_sealed_unchecked(tmp_path):
    """`rows` says that they are somebody else's concern."""
    path = write(tmp_path, "r.jsonl", [{"text": "a", "label": "b"}, {"text": "a"}])
    assert path.read_bytes() == b"".join(RowStream([path], "rows").lines())


def test_rows_of_no_method_are_left_alone(tmp_path):
    """Questions without answers, documents and rows of a bias test set are sealed as they are."""
    for rows in ([{"prompt": "a"}], [{"messages": [USER]}], [{"text": "a"}, {"title": "b"}], [{"kind": "pair"}]):
        path = write(tmp_path, "r.jsonl", rows)
        assert path.read_bytes() == b"".join(RowStream([path]).lines())


ALPACA: list[dict[str, Any]] = [
    {"instruction": "Add.", "input": "1 2", "output": "3"},
    {"instruction": "And?", "output": "4", "system": "Be short.", "history": [["Add.", "3"]]},
]
ALPACA_MESSAGES = [
    [("user", "Add.\n1 2"), ("assistant", "3")],
    [("system", "Be short."), ("user", "Add."), ("assistant", "3"), ("user", "And?"), ("assistant", "4")],
]


def test_alpaca_becomes_messages(tmp_path):
    """Instruction and input are the question; system and history stand before it; a JSON list reads as lines do."""
    expected = [{"messages": [{"role": role, "content": text} for role, text in row]} for row in ALPACA_MESSAGES]
    assert expected == converted(write(tmp_path, "a.jsonl", ALPACA))
    (tmp_path / "a.json").write_text(json.dumps(ALPACA, indent=1))
    assert expected == converted(tmp_path / "a.json")


def test_sharegpt_becomes_messages_with_tools(tmp_path):
    """Speakers become roles, calls become tool_calls, and functions become tools."""
    row = {
        "system": "Be short.",
        "tools": json.dumps([{"name": "add", "parameters": {}}]),
        "conversations": [
            {"from": "human", "value": "1 + 2?"},
            {"from": "function_call", "value": '{"name": "add", "arguments": {"a": 1}}'},
            {"from": "observation", "value": "3"},
            {"from": "function", "value": "4"},
            {"from": "gpt", "value": "It is 3."},
        ],
    }
    call = {"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
    expected = {
        "messages": [
            {"role": "system", "content": "Be short."},
            {"role": "user", "content": "1 + 2?"},
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "content": "3"},
            {"role": "tool", "content": "4"},
            {"role": "assistant", "content": "It is 3."},
        ],
        "tools": [{"type": "function", "function": {"name": "add", "parameters": {}}}],
    }
    assert [expected] == converted(write(tmp_path, "s.jsonl", [row]))


def test_preferences_of_openai_become_pairs(tmp_path):
    """The messages of the input are the prompt, and the two outputs are what is compared."""
    worse = {**ANSWER, "content": "b"}
    row = {"input": {"messages": [USER]}, "preferred_output": [ANSWER], "non_preferred_output": [worse]}
    assert [{"prompt": [USER], "chosen": [ANSWER], "rejected": [worse]}] == converted(write(tmp_path, "p", [row]))


@pytest.mark.parametrize(
    ("good", "bad", "reason"),
    [
        (ALPACA[0], {"instruction": "CANARY", "output": ""}, "empty output"),
        (ALPACA[0], {**ALPACA[0], "input": 1}, "input is no text"),
        (ALPACA[0], {**ALPACA[0], "history": ["CANARY"]}, "history is no list of questions with answers"),
        (ALPACA[0], {**ALPACA[0], "history": [["CANARY", ""]]}, "a message of messages has no content"),
        (
            {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]},
            {"conversations": [{"from": "human", "value": "CANARY"}]},
            "no message of the assistant to learn",
        ),
        (
            {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]},
            {"conversations": [{"from": "CANARY", "value": "a"}]},
            "a turn is not from",
        ),
        (
            {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]},
            {"conversations": [{"from": "function_call", "value": "CANARY"}]},
            "a function_call is no JSON of a name and arguments",
        ),
        (
            {"input": {"messages": [USER]}, "preferred_output": [ANSWER], "non_preferred_output": [USER, ANSWER]},
            {"input": {"messages": [USER]}, "preferred_output": [ANSWER], "non_preferred_output": [ANSWER]},
            "chosen and rejected are the same",
        ),
    ],
)
def test_what_cannot_be_converted_is_told_by_its_place(tmp_path, good, bad, reason):
    """A bad row of a converted file is refused by its line, or by its place in a JSON list."""
    message = refusal(write(tmp_path, "r.jsonl", [good, bad]))
    assert "line 2" in message
    assert reason in message
    (tmp_path / "r.json").write_text(json.dumps([good, bad]))
    assert "entry 2" in refusal(tmp_path / "r.json")


def test_an_unknown_format_names_the_known(tmp_path):
    """A name that is none is refused with all that there are."""
    with pytest.raises(UsageError, match=r"choose one of rows, .*alpaca, .*supervised"):
        RowStream([write(tmp_path, "r.jsonl", [{"text": "a"}])], "alpacca")
