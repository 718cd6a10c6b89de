# SPDX-License-Identifier: Apache-2.0
"""Questions with their answers: rows of prompt and completion, of messages, of source and target, of question and
answer, of text and label.

A prompt or completion is a text, or a list of messages. Of a chat the last answer is the completion, all before it the
prompt. A question becomes `{question} LF Answer:`, or a user's message where the model has a chat template of its own;
a text with a label becomes `{text} LF Label:`, so that a causal model can classify.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cloister_workers.messages import RowReason
from cloister_workers.trainer.example import digest_of
from cloister_workers.trainer.prompts import Message, Prompt, checked_messages
from cloister_workers.trainer.rows import checked_text, text_of


@dataclass(frozen=True)
class Shot:
    """A question and its answer, both texts or both lists of messages."""

    prompt: Prompt
    completion: Prompt
    query: str = ""
    """What it is searched by, where that is not the prompt."""
    answers: tuple[str, ...] = ()
    """Texts that are right, where there are others than the completion."""

    @property
    def asked(self) -> str:
        """What it is searched by: the question, the text, or the user's last message."""
        return self.query or last_question(self.prompt)

    @property
    def references(self) -> tuple[str, ...]:
        """Every text that is right."""
        if isinstance(self.completion, str):
            return self.answers or (self.completion.strip(),)
        return self.answers or tuple(turn["content"] for turn in self.completion if turn["role"] == "assistant")

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


def last_question(prompt: Prompt) -> str:
    """The text of a prompt, or the user's last message."""
    if isinstance(prompt, str):
        return prompt
    asked: list[str] = [message["content"] for message in prompt if message["role"] == "user"]
    return asked[-1] if asked else str(prompt[-1]["content"])


def questioned(question: str, answers: tuple[str, ...], *, chat: bool) -> Shot:
    """How a model is asked a plain question, `chat` where it has a chat template of its own. The first answer is the
    completion; without one it is empty.
    """
    if not chat:
        return Shot(f"{question}\nAnswer:", f" {answers[0]}" if answers else "", question, answers)
    turns = [{"role": "assistant", "content": answer} for answer in answers[:1]]
    return Shot([{"role": "user", "content": question}], turns, question, answers)


def asked_as(question: str) -> frozenset[bytes]:
    """Digests of the prompts that a plain question may have become."""
    forms = (questioned(question, (), chat=chat).group for chat in (False, True))
    return frozenset({digest_of(question), *forms})


def read_shot(row: Mapping[str, object], *, chat: bool) -> Shot | RowReason:
    """The question and the answer of a row, or why it has none."""
    if "question" in row:
        return _answered(row, chat=chat)
    if "messages" in row:
        messages = checked_messages(row["messages"])
        return messages if isinstance(messages, RowReason) else _last_answer(messages)
    if isinstance(row.get("prompt"), list):
        return _of(checked_messages(row["prompt"]), _required(row, "completion"))
    if "label" in row:
        return _labelled(row)
    for question, answer in (("source", "target"), ("prompt", "completion")):
        if question in row:
            return _of(text_of(dict(row), question), text_of(dict(row), answer))
    return RowReason.MISSING_KEY


def _answered(row: Mapping[str, object], *, chat: bool) -> Shot | RowReason:
    question, answers = text_of(dict(row), "question"), read_answers(row)
    if isinstance(question, RowReason):
        return question
    if isinstance(answers, RowReason):
        return answers
    return questioned(question, answers, chat=chat) if answers else RowReason.MISSING_KEY


def read_answers(row: Mapping[str, object]) -> tuple[str, ...] | RowReason:
    """`answer` or `answers`, a text or several, of which the first is the reference; none where the row has neither."""
    given = row.get("answer", row.get("answers", []))
    found = [checked_text(entry) for entry in (given if isinstance(given, list) else [given])]
    reasons = [entry for entry in found if isinstance(entry, RowReason)]
    return reasons[0] if reasons else tuple(str(entry) for entry in found)


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
    return checked_messages(row[key]) if key in row else RowReason.MISSING_KEY


def _of(prompt: Prompt | RowReason, completion: Prompt | RowReason) -> Shot | RowReason:
    if isinstance(prompt, RowReason):
        return prompt
    return completion if isinstance(completion, RowReason) else Shot(prompt, completion)
