# SPDX-License-Identifier: Apache-2.0
"""How the rows of an input are read, whatever is made of them."""

from __future__ import annotations

import io
import json

import pytest

from cloister_workers.errors import RowsRefused, TrainerError
from cloister_workers.messages import MAX_ROW_ERRORS, DatasetRole, FailureCode, RowErrors, RowReason
from cloister_workers.trainer.dataset import Given, Reading, read_dataset
from cloister_workers.trainer.example import digest_of


def words(rows):
    return [row.get("word", RowReason.MISSING_KEY) for row in rows]


def read(content, *, max_rows=0, reject_duplicates=False, before_chunk=lambda: None, seen=None):
    stream = content if isinstance(content, io.BytesIO) else io.BytesIO(content)
    reading = Reading(max_rows, reject_duplicates, before_chunk)
    known = set() if seen is None else seen
    return read_dataset(DatasetRole.TRAINING, stream, words, lambda row, _: digest_of(row), reading, known)


def lines(*values):
    return b"".join(json.dumps({"word": value}).encode() + b"\n" for value in values)


def test_rows_keep_the_numbers_of_their_lines():
    """What is made of a row goes by its line, bad lines and refused rows by theirs, in one order."""
    found = read(lines("a") + b'\nnonsense\n{"other": 1}\n' + lines("b"))
    assert (Given(1, "a"), Given(5, "b")) == found.rows
    assert ((3, RowReason.NOT_JSON), (4, RowReason.MISSING_KEY)) == found.problems
    assert 4 == found.total


def test_a_repeated_row_is_counted_and_refused_where_that_is_wanted():
    """Repeats count across inputs; with reject_duplicates the later row is a problem."""
    seen: set[bytes] = set()
    read(lines("a"), seen=seen)
    kept = read(lines("b", "a"), seen=set(seen))
    assert ((Given(1, "b"), Given(2, "a")), 1) == (kept.rows, kept.duplicates)
    refused = read(lines("b", "a"), seen=set(seen), reject_duplicates=True)
    assert ((Given(1, "b"),), ((2, RowReason.DUPLICATE),)) == (refused.rows, refused.problems)


def test_a_limit_ends_the_rows_and_not_the_reading():
    """Rows beyond max_rows are no rows, yet the stream is read to its end, so that who writes it can end."""
    stream = io.BytesIO(lines(*(str(number) for number in range(1200))))
    looks: list[int] = []
    found = read(stream, max_rows=700, before_chunk=lambda: looks.append(1))
    assert (700, 700) == (found.total, len(found.rows))
    assert b"" == stream.read()
    assert 3 == len(looks)


def test_problems_are_told_in_part_and_refused_in_full():
    """The message lists the first problems and counts all of them; without a problem nothing is told."""
    told: list[RowErrors] = []
    read(lines("a")).refuse(told.append)
    assert [] == told
    with pytest.raises(RowsRefused, match=f"{MAX_ROW_ERRORS + 5} rows of the training dataset") as caught:
        read(b"{}\n" * (MAX_ROW_ERRORS + 5)).refuse(told.append)
    assert FailureCode.ROWS_INVALID is caught.value.code
    (message,) = told
    assert (MAX_ROW_ERRORS + 5, MAX_ROW_ERRORS) == (message.total_errors, len(message.errors))


def test_a_stream_that_fails_is_no_short_dataset():
    """An input that ends with an error is INPUT_UNREADABLE, not the rows that came before it."""

    class Broken(io.BytesIO):
        def readline(self, size=-1):
            line = super().readline(size)
            if not line:
                raise OSError
            return line

    with pytest.raises(TrainerError) as caught:
        read(Broken(lines("a")))
    assert FailureCode.INPUT_UNREADABLE is caught.value.code
