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
from cloister_workers.trainer.prompts import REFUSALS, Prompt, read_prompt, rendered
from cloister_workers.trainer.rewards import CheckKind, Exercise


@dataclass(frozen=True)
class ExerciseReader:
    """Reads rows. `exercises` holds what was read of each, by the example's digest."""

    tokenizer: Any
    longest: int
    """Tokens of a prompt."""
    check: CheckKind | None
    exercises: dict[bytes, Exercise] = field(default_factory=dict)

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
        self.exercises[example.digest] = Exercise(prompt, text, check)
        return example

    def _text(self, prompt: Prompt) -> str:
        if isinstance(prompt, str):
            return prompt
        text = rendered(self.tokenizer, prompt, prompt=True)
        first = self.tokenizer.bos_token
        # Many templates write the token that the tokenizer puts before every text by itself.
        doubled = first is not None and self.tokenizer("a")["input_ids"][:1] == [self.tokenizer.bos_token_id]
        return text.removeprefix(first) if doubled else text


def _prompt(row: dict[str, object]) -> Prompt | RowReason:
    prompt = read_prompt(row, "prompt")
    answered = isinstance(prompt, list) and prompt[-1]["role"] == "assistant"
    return RowReason.NO_COMPLETION if answered else prompt
