# SPDX-License-Identifier: Apache-2.0
"""Rows of prompts whose answers are rewarded, and the answers that a model gives.

A prompt is a text or a list of messages; of messages the tokenizer's chat template makes the text, up to where the
assistant's turn begins. What else a row needs, its reward says (`rewards`).
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

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


def likeliest_answers(
    model: torch.nn.Module,
    tokenizer: Any,  # noqa: ANN401 - transformers' own type is dynamic
    texts: Sequence[str],
    max_new_tokens: int,
    before_batch: Callable[[], object],
) -> list[str]:
    """What the model says to each text where it always takes the likeliest token; special tokens are left out.

    Draws no random numbers.
    """
    found: list[str] = []
    was_training = model.training
    model.eval()
    try:
        for start in range(0, len(texts), _AT_ONCE):
            before_batch()
            some = list(texts[start : start + _AT_ONCE])
            found += _answers(model, tokenizer, some, max_new_tokens)
    finally:
        model.train(was_training)
    return found


_AT_ONCE = 16  # prompts of one forward pass


def _answers(model: Any, tokenizer: Any, texts: list[str], max_new_tokens: int) -> list[str]:  # noqa: ANN401
    from transformers import GenerationConfig

    wanted = GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=False,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=_ends(model, tokenizer),
        bos_token_id=tokenizer.bos_token_id,
    )
    encoded = tokenizer(texts, padding=True, padding_side="left", return_tensors="pt").to(model.device)
    ids, mask = encoded["input_ids"], encoded["attention_mask"]
    with torch.no_grad():
        written = model.generate(input_ids=ids, attention_mask=mask, generation_config=wanted)
    return [str(text) for text in tokenizer.batch_decode(written[:, ids.shape[1] :], skip_special_tokens=True)]


def _ends(model: Any, tokenizer: Any) -> list[int]:  # noqa: ANN401
    """Every token that ends an answer: the tokenizer's, and those that the model names, as TRL has it."""
    named = model.generation_config.eos_token_id
    found = {tokenizer.eos_token_id, *(named if isinstance(named, list) else [named])}
    return sorted(int(token) for token in found if token is not None)
