# SPDX-License-Identifier: Apache-2.0
"""From rows of `messages`, or of `prompt` and `completion`, to tokens with the learned ones marked.

`messages`: a list of {role, content}, roles system, user and assistant, through the tokenizer's chat
template; what the template writes for each assistant turn after its generation prompt is learned. A tokenizer
without a template gets `FALLBACK_TEMPLATE`, which then is exported with it. `prompt` and `completion`: two
texts, concatenated as they are with the tokenizer's special tokens and an end-of-text token; or two lists of
messages, of which the completion's assistant turns are learned. Other keys are ignored.

Which tokens are learned is decided on characters: a token is learned if its first character belongs to a
learned span.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError

from cloister_workers.messages import RowReason
from cloister_workers.trainer.example import Example, digest_of
from cloister_workers.trainer.rows import checked_text, text_of

# "user: text" and a line end per message; an assistant turn ends with the end-of-text token before the line end.
FALLBACK_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)
_ROLES = frozenset({"system", "user", "assistant"})
Span = tuple[int, int]


@dataclass(frozen=True)
class ChatReader:
    """Reads rows with one tokenizer, which must be a fast one (offsets) and have a chat template."""

    tokenizer: Any
    max_seq_length: int

    def read(self, row: dict[str, object]) -> Example | RowReason:
        if "messages" in row:
            messages = checked_messages(row["messages"])
            return messages if isinstance(messages, RowReason) else self._chat(messages, 0)
        if isinstance(row.get("prompt"), list):
            return self._split_chat(row)
        prompt, completion = text_of(row, "prompt"), text_of(row, "completion")
        if isinstance(prompt, RowReason):
            return prompt
        if isinstance(completion, RowReason):
            return completion
        spans = [(len(prompt), len(prompt) + len(completion))]
        return self._example(prompt + completion, spans, end=True, group=digest_of(prompt))

    def _split_chat(self, row: dict[str, object]) -> Example | RowReason:
        prompt, completion = checked_messages(row["prompt"]), checked_messages(row.get("completion"))
        if isinstance(prompt, RowReason):
            return prompt
        if isinstance(completion, RowReason):
            return RowReason.MISSING_KEY if "completion" not in row else completion
        return self._chat([*prompt, *completion], len(prompt))

    def _chat(self, messages: list[dict[str, str]], first: int) -> Example | RowReason:
        """Learn the assistant turns from message `first` on."""
        turns = [i for i, message in enumerate(messages) if i >= first and message["role"] == "assistant"]
        if not turns:
            return RowReason.NO_COMPLETION
        try:
            text = self._render(messages, prompt=False)
            spans = [span for turn in turns if (span := self._turn(messages, turn, text))]
        except TemplateError:
            return RowReason.TEMPLATE_REFUSED
        if not spans:
            return RowReason.TEMPLATE_REFUSED
        return self._example(text, spans, end=False, group=digest_of(messages[: turns[-1]]))

    def _turn(self, messages: list[dict[str, str]], turn: int, text: str) -> Span | None:
        """Where `text` holds this turn; None if the template writes it otherwise with what follows."""
        before = self._render(messages[:turn], prompt=True)
        after = self._render(messages[: turn + 1], prompt=False)
        if not (text.startswith(after) and after.startswith(before) and len(after) > len(before)):
            return None
        return len(before), len(after)

    def _render(self, messages: list[dict[str, str]], *, prompt: bool) -> str:
        if not messages:
            return ""
        text = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt)
        return str(text)

    def _example(self, text: str, spans: Sequence[Span], *, end: bool, group: bytes) -> Example | RowReason:
        encoded = self.tokenizer(text, add_special_tokens=end, return_offsets_mapping=True)
        tokens = array("i", encoded["input_ids"])
        learned = bytearray(
            start < stop and any(low <= start < high for low, high in spans)
            for start, stop in encoded["offset_mapping"]
        )
        eos = self.tokenizer.eos_token_id
        if end and eos is not None:
            if tokens[-1] != eos:
                tokens.append(eos)
                learned.append(0)
            learned[-1] = 1
        if len(tokens) > self.max_seq_length:
            return RowReason.TOO_LONG
        if not any(learned[1:]):
            return RowReason.NO_COMPLETION
        return Example(tokens=tokens, learned=bytes(learned), group=group, digest=digest_of(text, list(spans)))


def checked_messages(value: object) -> list[dict[str, str]] | RowReason:
    """`value` where it is a list of messages with known roles and texts, else the reason."""
    if not isinstance(value, list):
        return RowReason.WRONG_TYPE
    messages = []
    for entry in value:
        if not isinstance(entry, dict):
            return RowReason.WRONG_TYPE
        if "role" not in entry or "content" not in entry:
            return RowReason.MISSING_KEY
        content = checked_text(entry["content"])
        if isinstance(content, RowReason):
            return content
        if not isinstance(entry["role"], str) or entry["role"] not in _ROLES:
            return RowReason.UNKNOWN_ROLE
        messages.append({"role": entry["role"], "content": content})
    return messages or RowReason.EMPTY_TEXT
