# SPDX-License-Identifier: Apache-2.0
"""Prompts: texts, or the messages of a chat; from rows, and to what a model reads.

A message has a role (system, user, assistant or tool) and content. `tool_calls`, `tool_call_id` and `name` in it go to
the chat template as they are, but for the arguments of a call: OpenAI's format has them as JSON in a text, templates
want the object.
"""

from __future__ import annotations

import json
from typing import Any

from jinja2 import TemplateError

from cloister_workers.messages import RowReason
from cloister_workers.trainer.rows import checked_text, text_of

# "user: text" and a line end per message; an assistant turn ends with the end-of-text token before the line end.
FALLBACK_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)
_ROLES = frozenset({"system", "user", "assistant", "tool"})
_PASSED = ("name", "tool_calls", "tool_call_id")  # what a template may know of a message beside role and content
REFUSALS = (TemplateError, TypeError, ValueError, KeyError, AttributeError)
"""What a template raises on a row that is not as it expects: a call without arguments cannot be written as JSON."""
Message = dict[str, Any]
Prompt = str | list[Message]


def read_prompt(row: dict[str, object], key: str) -> Prompt | RowReason:
    """The text or the messages under `key`, or why there are none."""
    return checked_messages(row[key]) if isinstance(row.get(key), list) else text_of(row, key)


def rendered(
    tokenizer: Any,  # noqa: ANN401 - transformers' own type is dynamic
    messages: list[Message],
    tools: list[Any] | None = None,
    *,
    prompt: bool,
) -> str:
    """What the tokenizer's chat template writes; `prompt`: up to where the assistant's turn begins.

    Raises one of `REFUSALS` for messages that the template does not take.
    """
    return str(tokenizer.apply_chat_template(messages, tools=tools, tokenize=False, add_generation_prompt=prompt))


def prompt_tokens(
    tokenizer: Any,  # noqa: ANN401 - transformers' own type is dynamic
    prompt: Prompt,
    *,
    whole: bool = False,
    longest: int | None = None,
) -> list[int]:
    """The tokens of a prompt up to where the answer begins; `whole`: with the token that ends it, as an encoder reads
    it, and of a chat what was said alone where the tokenizer has no template of its own. More than `longest` are cut at
    the end. Raises as `rendered`.
    """
    cut = {} if longest is None else {"truncation": True, "max_length": longest}
    if whole and isinstance(prompt, list) and tokenizer.chat_template in (None, FALLBACK_TEMPLATE):
        prompt = said_in(prompt)
    if isinstance(prompt, str):
        tokens: list[int] = tokenizer(prompt, verbose=False, **cut)["input_ids"]
        return tokens[:-1] if not whole and tokens and tokens[-1] == tokenizer.eos_token_id else tokens
    text = rendered(tokenizer, prompt, prompt=True)
    found: list[int] = tokenizer(text, add_special_tokens=False, verbose=False, **cut)["input_ids"]
    return found


def said_in(messages: list[Message]) -> str:
    """The contents of messages, a line end between them. Raises ValueError for calls of tools and their answers, which
    have no plain form.
    """
    if any(message["role"] == "tool" or message.get("tool_calls") for message in messages):
        raise ValueError("a chat with tools, and the tokenizer has no chat template")
    return "\n".join(message["content"] for message in messages)


def checked_messages(value: object) -> list[Message] | RowReason:
    """A list of messages with what a chat template may know of them, or why it is none."""
    if not isinstance(value, list):
        return RowReason.WRONG_TYPE
    messages: list[Message] = []
    for entry in value:
        message = _message(entry)
        if isinstance(message, RowReason):
            return message
        messages.append(message)
    return messages or RowReason.EMPTY_TEXT


def _message(entry: object) -> Message | RowReason:
    if not isinstance(entry, dict):
        return RowReason.WRONG_TYPE
    calls = entry.get("tool_calls")
    if "role" not in entry or ("content" not in entry and not calls):
        return RowReason.MISSING_KEY
    # A turn that calls a tool may say nothing beside.
    content = "" if calls and not entry.get("content") else checked_text(entry["content"])
    if isinstance(content, RowReason):
        return content
    if not isinstance(entry["role"], str) or entry["role"] not in _ROLES:
        return RowReason.UNKNOWN_ROLE
    listed = isinstance(calls or [], list) and all(isinstance(call, dict) for call in calls or [])
    if entry.get("weight", 1) not in (0, 1) or not listed:
        return RowReason.WRONG_TYPE
    message = {"role": entry["role"], "content": content, **{name: entry[name] for name in _PASSED if entry.get(name)}}
    if calls:
        message["tool_calls"] = [_call(call) for call in calls]
    return {**message, "weight": entry["weight"]} if "weight" in entry else message


def _call(call: Message) -> Message:
    """The call with its arguments as an object, where they are the JSON of one."""
    function = call.get("function")
    if not isinstance(function, dict) or not isinstance(function.get("arguments"), str):
        return call
    try:
        arguments = json.loads(function["arguments"])
    except ValueError:
        return call
    return {**call, "function": {**function, "arguments": arguments}} if isinstance(arguments, dict) else call
