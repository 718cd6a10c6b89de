# SPDX-License-Identifier: Apache-2.0
"""Rewards that a row itself can be asked for: 1 for an answer that passes its check, else 0.

    exact_answer        {"answer": text}: the whole answer, or its last line with anything on it, is this text; letters'
                        case, compatible forms (NFKC) and the amount of white space do not count
    regular_expression  {"pattern": text}: the expression, Python's, is found in the answer; ^ and $ stand for its ends
    json_schema         {"schema": object}: the whole answer is JSON that the schema (2020-12, or the draft that its
                        $schema names) allows; $ref may point into the schema alone, `format` is a remark

A check may compute for LIMIT seconds a time; one that takes longer is not passed, and one that takes so long to be read
is refused.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from cloister_workers.errors import TookTooLong
from cloister_workers.messages import RowReason
from cloister_workers.trainer.rewards.limit import processor_limit
from cloister_workers.trainer.rows import strict_json, text_of

LIMIT = 0.5  # seconds of processor time
Check = Callable[[str], bool]
Row = Mapping[str, object]


def passes(check: Check, answer: str) -> bool:
    """Whether the answer passes within LIMIT."""
    try:
        with processor_limit(LIMIT):
            return check(answer)
    except (TookTooLong, RecursionError):
        return False


def exact_answer(row: Row) -> Check | RowReason:
    """Raises nothing; a row without an answer has its reason."""
    wanted = text_of(dict(row), "answer")
    if isinstance(wanted, RowReason):
        return wanted
    right = normalised(wanted)

    def check(answer: str) -> bool:
        lines = [line for line in answer.splitlines() if line.strip()]
        return right in (normalised(answer), normalised(lines[-1]) if lines else "")

    return check


def normalised(text: str) -> str:
    """One form for texts that differ in case, compatible characters or white space alone."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def regular_expression(row: Row) -> Check | RowReason:
    """A pattern that is no expression is BAD_CHECK."""
    pattern = text_of(dict(row), "pattern")
    if isinstance(pattern, RowReason):
        return pattern
    try:
        with processor_limit(LIMIT):
            expression = re.compile(pattern)
    except (re.error, OverflowError, RecursionError, TookTooLong):
        return RowReason.BAD_CHECK

    def check(answer: str) -> bool:
        return expression.search(answer) is not None

    return check


def json_schema(row: Row) -> Check | RowReason:
    """A schema that is none, or that points out of itself, is BAD_CHECK."""
    import jsonschema
    import referencing

    schema = row.get("schema")
    if schema is None:
        return RowReason.MISSING_KEY
    if not isinstance(schema, dict):
        return RowReason.WRONG_TYPE
    try:
        with processor_limit(LIMIT):
            kind: Any = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
            kind.check_schema(schema)
            usable = all(_stays_inside(key, value) for key, value in _entries(schema))
    except (jsonschema.SchemaError, re.error, RecursionError, TookTooLong, TypeError, ValueError):
        return RowReason.BAD_CHECK
    if not usable:
        return RowReason.BAD_CHECK
    # An empty registry: the library's own would fetch what a reference names.
    validator = kind(schema, registry=referencing.Registry())

    def check(answer: str) -> bool:
        try:
            return bool(validator.is_valid(strict_json(answer)))
        except (ValueError, OverflowError, referencing.exceptions.Unresolvable):
            return False

    return check


def _entries(value: object) -> Iterator[tuple[str, object]]:
    """Every key with its value, at any depth."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key, inner
            yield from _entries(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _entries(inner)


def _stays_inside(key: str, value: object) -> bool:
    if key == "pattern" and isinstance(value, str):
        re.compile(value)
    if key == "patternProperties" and isinstance(value, dict):
        for pattern in value:
            re.compile(pattern)
    return key not in ("$ref", "$dynamicRef") or not isinstance(value, str) or value.startswith("#")
