# SPDX-License-Identifier: Apache-2.0
"""Rows of prompts whose answers are rewarded.

A prompt is a text or a list of messages; of messages the tokenizer's chat template makes the text, up to where the
assistant's turn begins. What else a row needs, its reward says (`rewards`).
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from cloister_workers.messages import RowReason
from cloister_workers.trainer.example import Example, digest_of
from cloister_workers.trainer.objectives.chat import REFUSALS, checked_messages
from cloister_workers.trainer.rewards import CheckKind, Prompt, Task
from cloister_workers.trainer.rows import text_of


@dataclass(frozen=True)
class PromptReader:
    """Reads rows. `tasks` holds what was read of each, by the example's digest."""

    tokenizer: Any
    longest: int
    """Tokens of a prompt."""
    check: CheckKind | None
    tasks: dict[bytes, Task] = field(default_factory=dict)

    def read(self, rows: Sequence[dict[str, object]]) -> list[Example | RowReason]:
        return [self._example(row) for row in rows]

    def _example(self, row: dict[str, object]) -> Example | RowReason:
        prompt = _prompt(row)
        if isinstance(prompt, RowReason):
            return prompt
        check = None if self.check is None else self.check(row)
        if isinstance(check, RowReason):
            return check
        try:
            text = self._text(prompt)
        except REFUSALS:
            return RowReason.TEMPLATE_REFUSED
        tokens = array("i", self.tokenizer(text, verbose=False)["input_ids"])
        if len(tokens) > self.longest:
            return RowReason.TOO_LONG
        judged = {key: row[key] for key in ("answer", "pattern", "schema") if key in row}
        example = Example(tokens=tokens, group=digest_of(prompt), digest=digest_of(prompt, judged))
        self.tasks[example.digest] = Task(prompt, text, check)
        return example

    def _text(self, prompt: Prompt) -> str:
        if isinstance(prompt, str):
            return prompt
        text = str(self.tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True))
        first = self.tokenizer.bos_token
        # Many templates write the token that the tokenizer puts before every text by itself.
        doubled = first is not None and self.tokenizer("a")["input_ids"][:1] == [self.tokenizer.bos_token_id]
        return text.removeprefix(first) if doubled else text


def _prompt(row: dict[str, object]) -> Prompt | RowReason:
    if not isinstance(row.get("prompt"), list):
        return text_of(row, "prompt")
    messages = checked_messages(row["prompt"])
    if isinstance(messages, RowReason):
        return messages
    return RowReason.NO_COMPLETION if messages[-1]["role"] == "assistant" else messages
