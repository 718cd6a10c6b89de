# SPDX-License-Identifier: Apache-2.0
"""Checks that reward answers: what passes, what is refused, and that none can hang the job."""

from __future__ import annotations

import contextlib
import signal
import socket
import weakref

import pytest

from cloister_workers.errors import TookTooLong
from cloister_workers.messages import RowReason
from cloister_workers.trainer.rewards import Exercise, by_checks
from cloister_workers.trainer.rewards.checks import exact_answer, json_schema, passes, regular_expression
from cloister_workers.trainer.rewards.limit import processor_limit


def task(check):
    return Exercise("", "", check)


def judged(check, answer):
    return passes(check, answer)


@pytest.mark.parametrize(
    ("answer", "passed"),
    [
        ("42 km", True),
        ("  42   KM \n", True),
        ("Six times seven is 42.\n\n42 km\n", True),
        ("\uff14\uff12 km", True),  # full-width digits
        ("42 km, I think", False),
        ("42 km\nor not", False),
        ("42", False),
        ("", False),
    ],
)
def test_an_exact_answer_is_the_text_or_its_last_line(answer, passed):
    """Case, white space and compatible characters do not count; anything more or less does."""
    assert passed == judged(exact_answer({"answer": "42 km"}), answer)


@pytest.mark.parametrize(
    ("pattern", "answer", "passed"),
    [
        ("b+", "abba", True),
        ("^b+$", "abba", False),
        ("^b+$", "bb", True),
        (r"(?i)yes\b", "I say YES!", True),
        ("yes", "no", False),
    ],
)
def test_an_expression_is_searched_for(pattern, answer, passed):
    """An expression passes where it is found, and stands for the whole answer only if it says so."""
    assert passed == judged(regular_expression({"pattern": pattern}), answer)


@pytest.mark.parametrize(
    ("schema", "answer", "passed"),
    [
        ({"type": "object", "required": ["a"]}, '{"a": 1}', True),
        ({"type": "object", "required": ["a"]}, '{"b": 1}', False),
        ({"type": "object", "required": ["a"]}, 'Here: {"a": 1}', False),
        ({"$ref": "#/$defs/n", "$defs": {"n": {"type": "integer"}}}, "7", True),
        ({"$ref": "#/$defs/nothing"}, "7", False),
        ({"$schema": "http://json-schema.org/draft-04/schema#", "minimum": 3, "exclusiveMinimum": True}, "3", False),
        ({"type": "number"}, "NaN", False),
        ({}, "[" * 100_000, False),
        ({"$ref": "#"}, "7", False),
    ],
)
def test_a_schema_judges_the_whole_answer(schema, answer, passed):
    """The answer must be JSON, all of it, and what the schema allows; a reference stays in the schema."""
    assert passed == judged(json_schema({"schema": schema}), answer)


@pytest.mark.parametrize(
    ("kind", "row", "reason"),
    [
        (exact_answer, {}, RowReason.MISSING_KEY),
        (exact_answer, {"answer": " "}, RowReason.EMPTY_TEXT),
        (regular_expression, {"pattern": None}, RowReason.WRONG_TYPE),
        (regular_expression, {"pattern": "a{1,99999999999}"}, RowReason.BAD_CHECK),
        (regular_expression, {"pattern": "(?P<a"}, RowReason.BAD_CHECK),
        (json_schema, {}, RowReason.MISSING_KEY),
        (json_schema, {"schema": [1]}, RowReason.WRONG_TYPE),
        (json_schema, {"schema": {"properties": {"a": {"type": "whole"}}}}, RowReason.BAD_CHECK),
        (json_schema, {"schema": {"properties": {"a": {"pattern": "("}}}}, RowReason.BAD_CHECK),
        (json_schema, {"schema": {"patternProperties": {"(": {}}}}, RowReason.BAD_CHECK),
        (json_schema, {"schema": {"allOf": [{"$ref": "file:///etc/passwd"}]}}, RowReason.BAD_CHECK),
        (json_schema, {"schema": {"$dynamicRef": "http://127.0.0.1/x"}}, RowReason.BAD_CHECK),
    ],
)
def test_a_malformed_check_has_its_reason(kind, row, reason):
    """What cannot be used as a check is refused when it is read."""
    assert reason == kind(row)


# The limit may strike inside a weak reference's callback, where the interpreter says that it drops it.
DROPPED = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
DOUBLING = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(60)}


@pytest.mark.parametrize(
    ("kind", "row", "answer"),
    [
        (regular_expression, {"pattern": "(a+)+$"}, "a" * 60 + "b"),
        (regular_expression, {"pattern": "(a|aa)+$"}, "a" * 80 + "b"),
        (json_schema, {"schema": {"pattern": "^(a+)+$"}}, '"' + "a" * 60 + 'b"'),
        (json_schema, {"schema": {"$ref": "#/$defs/d0", "$defs": {**DOUBLING, "d60": {}}}}, "7"),
    ],
)
@DROPPED
def test_a_check_that_would_never_end_is_not_passed(monkeypatch, kind, row, answer):
    """Catastrophic backtracking and references that double are stopped; the next check has all its time again."""
    monkeypatch.setattr("cloister_workers.trainer.rewards.checks.LIMIT", 0.05)
    tasks = [task(kind(row)), task(exact_answer({"answer": "7"}))]
    assert [0.0, 1.0] == by_checks(tasks, [answer, "7"])


@DROPPED
def test_a_limit_that_is_lost_is_raised_again():
    """Neither a weak reference's callback, whose exception the interpreter drops, nor an except clause outlasts it."""
    ends = []

    def spin(_: object) -> None:
        try:
            while True:
                pass
        finally:
            ends.append(True)

    with pytest.raises(TookTooLong), processor_limit(0.01):
        thing = {0}  # sets can be referred to weakly
        watch = weakref.ref(thing, spin)
        del thing
        assert [True] == ends
        with contextlib.suppress(TookTooLong):
            spin(watch)
        spin(watch)
    assert [True] * 3 == ends


def test_the_limit_leaves_nothing_behind():
    """After the limit the process's signal handler and timer are what they were."""
    before = signal.getsignal(signal.SIGVTALRM)
    with pytest.raises(TookTooLong), processor_limit(0.01):
        while True:
            pass
    assert before == signal.getsignal(signal.SIGVTALRM)
    assert (0.0, 0.0) == signal.getitimer(signal.ITIMER_VIRTUAL)


def test_a_schema_never_opens_a_connection(monkeypatch):
    """Nothing is fetched for a schema, whichever draft or address it names."""

    def refuse(*_, **__):
        raise AssertionError

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    schema = {"$schema": "http://127.0.0.1/draft", "$id": "http://127.0.0.1/", "$ref": "#/$defs/a"}
    assert not judged(json_schema({"schema": schema}), "7")
