# SPDX-License-Identifier: Apache-2.0
"""Questions with their answers: rows of prompt and completion, of messages, of source and target, of text and label.

A prompt or completion is a text, or a list of messages. Of a chat the last answer is the completion, all before it the
prompt. A text with a label becomes a prompt by `labelled_prompt`, so that a causal model can classify.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from cloister_workers.messages import RowReason
from cloister_workers.trainer.example import digest_of
from cloister_workers.trainer.objectives.chat import _messages as read_messages
from cloister_workers.trainer.rows import checked_text, text_of

Message: TypeAlias = dict[str, str]
Prompt: TypeAlias = str | list[Message]


@dataclass(frozen=True)
class Shot:
    """A question and its answer, both texts or both lists of messages."""

    prompt: Prompt
    completion: Prompt

    @property
    def group(self) -> bytes:
        """Digest of the question: equal for equal questions alone."""
        return digest_of(self.prompt)

    def row(self) -> dict[str, object]:
        """As the supervised objective reads it, which learns or scores the completion alone."""
        return {"prompt": self.prompt, "completion": self.completion}


def labelled_prompt(text: str) -> str:
    """How a causal model is asked for the label of a text."""
    return f"{text}\nLabel:"


def read_shot(row: Mapping[str, object]) -> Shot | RowReason:
    """The question and the answer of a row, or why it has none."""
    if "messages" in row:
        messages = read_messages(row["messages"])
        return messages if isinstance(messages, RowReason) else _last_answer(messages)
    if isinstance(row.get("prompt"), list):
        return _of(read_messages(row["prompt"]), _required(row, "completion"))
    if "label" in row:
        return _labelled(row)
    for question, answer in (("source", "target"), ("prompt", "completion")):
        if question in row:
            return _of(text_of(dict(row), question), text_of(dict(row), answer))
    return RowReason.MISSING_KEY


def _labelled(row: Mapping[str, object]) -> Shot | RowReason:
    text, label = text_of(dict(row), "text"), row["label"]
    if isinstance(text, RowReason):
        return text
    named = checked_text(str(label) if isinstance(label, int) and not isinstance(label, bool) else label)
    return named if isinstance(named, RowReason) else Shot(labelled_prompt(text), f" {named}")


def _last_answer(messages: list[Message]) -> Shot | RowReason:
    answers = [place for place, message in enumerate(messages) if message["role"] == "assistant" and place]
    if not answers:
        return RowReason.NO_COMPLETION
    return Shot(messages[: answers[-1]], messages[answers[-1] : answers[-1] + 1])


def _required(row: Mapping[str, object], key: str) -> list[Message] | RowReason:
    return read_messages(row[key]) if key in row else RowReason.MISSING_KEY


def _of(prompt: Prompt | RowReason, completion: Prompt | RowReason) -> Shot | RowReason:
    if isinstance(prompt, RowReason):
        return prompt
    return completion if isinstance(completion, RowReason) else Shot(prompt, completion)
