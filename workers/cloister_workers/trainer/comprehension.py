# SPDX-License-Identifier: Apache-2.0
"""Rows of `context`, `question` and `answers`: a list of texts, or of {text, answer_start}; empty where the
context does not say.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from cloister_workers.messages import RowReason
from cloister_workers.trainer.rows import checked_text, text_of


@dataclass(frozen=True)
class Comprehension:
    """A question about a context. `starts` are where the answers stand in it, in characters; None: the row does not
    say.
    """

    context: str
    question: str
    answers: tuple[str, ...]
    starts: tuple[int | None, ...]

    def span(self) -> tuple[int, int] | RowReason | None:
        """The characters of the first answer, without white space around it; None where there is no answer.

        ANSWER_NOT_FOUND unless all answers stand in the context, where the row says so or anywhere.
        """
        spans = []
        for answer, start in zip(self.answers, self.starts, strict=True):
            place = self.context.find(answer) if start is None else start
            if place < 0 or not self.context.startswith(answer, place):
                return RowReason.ANSWER_NOT_FOUND
            low = place + len(answer) - len(answer.lstrip())
            spans.append((low, low + len(answer.strip())))
        return spans[0] if spans else None


def parse_question(row: dict[str, object]) -> Comprehension | RowReason:
    """The context and the question of a row, or why it has none."""
    context, question = text_of(row, "context"), text_of(row, "question")
    if isinstance(context, RowReason):
        return context
    if isinstance(question, RowReason):
        return question
    return Comprehension(context, question, (), ())


def parse_comprehension(row: dict[str, object]) -> Comprehension | RowReason:
    """The row, or why it is none."""
    asked = parse_question(row)
    if isinstance(asked, RowReason):
        return asked
    if "answers" not in row:
        return RowReason.MISSING_KEY
    value = row["answers"]
    if not isinstance(value, list):
        return RowReason.WRONG_TYPE
    answers: list[str] = []
    starts: list[int | None] = []
    for entry in value:
        text, start = (entry.get("text"), entry.get("answer_start")) if isinstance(entry, dict) else (entry, None)
        answer = checked_text(text)
        if isinstance(answer, RowReason):
            return answer
        if isinstance(start, bool) or not (start is None or isinstance(start, int)):
            return RowReason.WRONG_TYPE
        answers.append(answer)
        starts.append(start)
    return replace(asked, answers=tuple(answers), starts=tuple(starts))
