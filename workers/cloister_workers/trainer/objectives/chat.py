# SPDX-License-Identifier: Apache-2.0
"""From rows of `messages`, or of `prompt` and `completion`, to tokens with the learned ones marked.

`messages`: a list of {role, content}, roles system, user, assistant and tool, through the tokenizer's chat
template; what the template writes for each assistant turn after its generation prompt is learned, unless the turn has
weight 0. `tools` beside them go to the template as they are; what it may know of a message says `prompts.py`. A
tokenizer without a template gets `FALLBACK_TEMPLATE`, which then is exported with it. `prompt` and `completion`: two
texts, concatenated as they are with the tokenizer's special tokens and an end-of-text token; or two lists of messages,
of which the completion's assistant turns are learned. `source` and `target`: two texts, with a line end between them.
Other keys are ignored.

A row of more than max_seq_length tokens is refused; with `truncate` it loses tokens from the left of its prompt, but
never one that is learned.

Which tokens are learned is decided on characters: a token is learned if its first character belongs to a
learned span.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cloister_workers.messages import RowReason
from cloister_workers.trainer.example import Example, digest_of
from cloister_workers.trainer.prompts import REFUSALS, Message, checked_messages, rendered
from cloister_workers.trainer.rows import text_of

Span = tuple[int, int]


@dataclass(frozen=True)
class ChatReader:
    """Reads rows with one tokenizer, which must be a fast one (offsets) and have a chat template."""

    tokenizer: Any
    max_seq_length: int
    truncate: bool = False

    def read(self, row: dict[str, object]) -> Example | RowReason:
        tools = _tools(row)
        if isinstance(tools, RowReason):
            return tools
        if "messages" in row:
            messages = checked_messages(row["messages"])
            return messages if isinstance(messages, RowReason) else self._chat(messages, 0, tools)
        if isinstance(row.get("prompt"), list):
            return self._split_chat(row, tools)
        if "source" in row:
            source, target = text_of(row, "source"), text_of(row, "target")
            prompt, completion = (source if isinstance(source, RowReason) else source + "\n"), target
        else:
            prompt, completion = text_of(row, "prompt"), text_of(row, "completion")
        if isinstance(prompt, RowReason):
            return prompt
        if isinstance(completion, RowReason):
            return completion
        spans = [(len(prompt), len(prompt) + len(completion))]
        return self._example(prompt + completion, spans, end=True, group=digest_of(prompt))

    def _split_chat(self, row: dict[str, object], tools: list[Any] | None) -> Example | RowReason:
        prompt, completion = checked_messages(row["prompt"]), checked_messages(row.get("completion"))
        if isinstance(prompt, RowReason):
            return prompt
        if isinstance(completion, RowReason):
            return RowReason.MISSING_KEY if "completion" not in row else completion
        return self._chat([*prompt, *completion], len(prompt), tools)

    def _chat(self, messages: list[Message], first: int, tools: list[Any] | None) -> Example | RowReason:
        """Learn the assistant turns from message `first` on."""
        turns = [i for i, message in enumerate(messages) if i >= first and _is_learned(message)]
        messages = [{name: value for name, value in entry.items() if name != "weight"} for entry in messages]
        if not turns:
            return RowReason.NO_COMPLETION
        try:
            text = self._render(messages, tools, prompt=False)
            spans = [span for turn in turns if (span := self._turn(messages, turn, text, tools))]
        except REFUSALS:
            return RowReason.TEMPLATE_REFUSED
        if not spans:
            return RowReason.TEMPLATE_REFUSED
        return self._example(text, spans, end=False, group=digest_of(messages[: turns[-1]]))

    def _turn(self, messages: list[Message], turn: int, text: str, tools: list[Any] | None) -> Span | None:
        """Where `text` holds this turn; None if the template writes it otherwise with what follows."""
        before = self._render(messages[:turn], tools, prompt=True)
        after = self._render(messages[: turn + 1], tools, prompt=False)
        if not (text.startswith(after) and after.startswith(before) and len(after) > len(before)):
            return None
        return len(before), len(after)

    def _render(self, messages: list[Message], tools: list[Any] | None, *, prompt: bool) -> str:
        return rendered(self.tokenizer, messages, tools, prompt=prompt) if messages else ""

    def _example(self, text: str, spans: Sequence[Span], *, end: bool, group: bytes) -> Example | RowReason:
        encoded = self.tokenizer(text, add_special_tokens=end, return_offsets_mapping=True)
        tokens = array("i", encoded["input_ids"])
        learned = bytearray(
            start < stop and any(low <= start < high for low, high in spans)
            for start, stop in encoded["offset_mapping"]
        )
        eos = self.tokenizer.eos_token_id
        if end and eos is not None:
            if not tokens or tokens[-1] != eos:
                tokens.append(eos)
                learned.append(0)
            learned[-1] = 1
        if not any(learned[1:]):
            return RowReason.NO_COMPLETION
        excess = len(tokens) - self.max_seq_length
        # One token stays before the first that is learned: it is what that one is predicted from.
        if excess > 0 and not (self.truncate and excess < learned.index(1)):
            return RowReason.TOO_LONG
        cut = max(0, excess)
        return Example(
            tokens=tokens[cut:],
            learned=bytes(learned[cut:]),
            group=group,
            digest=digest_of(text, list(spans)),
            truncated=cut > 0,
        )


def _is_learned(message: Message) -> bool:
    return bool(message["role"] == "assistant" and message.get("weight", 1) != 0)


def _tools(row: dict[str, object]) -> list[Any] | RowReason | None:
    tools = row.get("tools")
    if tools is None:
        return None
    return tools if isinstance(tools, list) and all(isinstance(tool, dict) for tool in tools) else RowReason.WRONG_TYPE
