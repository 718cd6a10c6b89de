# SPDX-License-Identifier: Apache-2.0
"""`cloister model try`: the row that a question becomes, and how an answer is shown."""

from __future__ import annotations

import pytest

from cloister.cli.trying import _shown, read_context
from cloister.errors import UsageError
from cloister.trying import row_of


def test_a_question_about_a_context_is_a_row_of_both():
    """Task answer is asked about a context; every other task takes none."""
    assert {"context": "It rains.", "question": "Does it?"} == row_of("answer", "Does it?", context="It rains.")
    assert {"text": "It rains."} == row_of("tag", "It rains.")
    for task, context in (("answer", " \n"), ("answer", ""), ("tag", "It rains.")):
        with pytest.raises(UsageError, match=task):
            row_of(task, "Does it?", context=context)


@pytest.mark.parametrize(
    ("answer", "shown"),
    [
        ({"row": 1, "tokens": ["in", "Bonn\x1b"], "tags": ["O", "B-LOC"], "unread": 0}, "in  O\nBonn   B-LOC"),
        ({"row": 1, "answer": "rain", "start": 3, "end": 7, "score": 1.5}, "rain  [3:7]  1.5"),
        ({"row": 1, "answer": "", "start": 0, "end": 0, "score": -0.5}, "(no answer)  -0.5"),
        ({"row": 1, "answer": "rain", "passages": [], "demonstrations": 0, "dropped": 0}, "rain"),
    ],
)
def test_an_answer_is_shown_by_what_it_is(answer, shown):
    """Tags stand beside their tokens, a found answer beside its characters and score; nothing acts on the terminal."""
    assert shown == _shown(answer)


def test_a_context_that_is_no_text_is_refused(tmp_path):
    """A file that is no UTF-8 text is named."""
    path = tmp_path / "context.bin"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match=r"context\.bin"):
        read_context(path)
