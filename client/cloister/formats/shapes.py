# SPDX-License-Identifier: Apache-2.0
"""What a row of each training method must hold, as docs/reference/spec.md says.

The trainer checks the same under the lease; here a bad row costs no job start.  What needs the model's tokenizer
(lengths, chat templates) or other rows (unknown labels, duplicates) is the trainer's alone.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping

from cloister.formats.reading import Bad, Row, filled

Check = Callable[[Row], Bad | None]
"""Why a row is none, in fixed words; None for a good one."""
ROLES = frozenset({"system", "user", "assistant", "tool"})
_CHECKS = ("answer", "pattern", "schema")


# ---------------------------------------------------------------- parts of rows
def messages(value: object, name: str, *, answered: bool = False) -> Bad | None:
    """A list of {role, content}; `answered`: with a turn of the assistant to learn."""
    if not isinstance(value, list) or not value:
        return Bad(f"{name} is no list of messages")
    for entry in value:
        if problem := _message(entry, name):
            return problem
    if answered and not any(entry["role"] == "assistant" and entry.get("weight", 1) for entry in value):
        return Bad(f"no message of the assistant to learn in {name}")
    return None


def _message(entry: object, name: str) -> Bad | None:
    if not isinstance(entry, dict) or entry.get("role") not in ROLES:
        return Bad(f"a message of {name} has no role of {', '.join(sorted(ROLES))}")
    calls = entry.get("tool_calls")
    if not isinstance(calls or [], list):
        return Bad(f"tool_calls in {name} are no list")
    if calls and not entry.get("content"):
        return None
    if filled(entry, "content"):
        return Bad(f"a message of {name} has no content")
    return None if entry.get("weight", 1) in (0, 1) else Bad(f"a weight in {name} is neither 0 nor 1")


def _said(row: Row, name: str, *, answered: bool = False) -> Bad | None:
    """A text, or a list of messages."""
    value = row.get(name)
    return messages(value, name, answered=answered) if isinstance(value, list) else filled(row, name)


def _labelled(value: object) -> bool:
    if isinstance(value, str):
        return bool(value.strip())
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _tools(row: Row) -> Bad | None:
    tools = row.get("tools")
    good = tools is None or (isinstance(tools, list) and all(isinstance(tool, dict) for tool in tools))
    return None if good else Bad("tools are no list of objects")


# ---------------------------------------------------------------- rows
def text(row: Row) -> Bad | None:
    """Plain text."""
    return filled(row, "text")


def classified(row: Row) -> Bad | None:
    """A text, or a pair of texts, with its label or labels."""
    if problem := filled(row, "text", *(("text_pair",) if "text_pair" in row else ())):
        return problem
    if "label" in row:
        return None if _labelled(row["label"]) else Bad("label is neither text nor a number")
    labels = row.get("labels")
    if labels is None:
        return Bad("no label")
    good = isinstance(labels, list) and all(_labelled(entry) for entry in labels)
    return None if good else Bad("labels are no list of texts or whole numbers")


def turns(row: Row) -> Bad | None:
    """A prompt with its answer, or messages that may end with a question."""
    return _tools(row) or _conversation(row, answered=False)


def answered(row: Row) -> Bad | None:
    """The same, where an answer is to be learned."""
    return _tools(row) or _conversation(row, answered=True)


def _conversation(row: Row, *, answered: bool) -> Bad | None:
    if "messages" in row:
        return messages(row["messages"], "messages", answered=answered)
    if "source" in row:
        return filled(row, "source", "target")
    if isinstance(row.get("prompt"), list):
        return messages(row["prompt"], "prompt") or messages(row.get("completion"), "completion", answered=True)
    return filled(row, "prompt", "completion")


def compared(row: Row) -> Bad | None:
    """A prompt with a better and a worse answer."""
    for name in ("prompt", "chosen", "rejected"):
        if problem := _said(row, name, answered=name != "prompt"):
            return problem
    if len({isinstance(row[name], list) for name in ("prompt", "chosen", "rejected")}) > 1:
        return Bad("prompt, chosen and rejected are not all texts, or all messages")
    return Bad("chosen and rejected are the same") if row["chosen"] == row["rejected"] else None


def judged(row: Row) -> Bad | None:
    """A prompt with an answer and whether it is wanted."""
    if not isinstance(row.get("label"), bool):
        return Bad("label is neither true nor false")
    return _conversation({name: row.get(name) for name in ("prompt", "completion")}, answered=True)


def tagged(row: Row) -> Bad | None:
    """Words and as many tags."""
    tokens, tags = row.get("tokens"), row.get("tags")
    if not isinstance(tokens, list) or not isinstance(tags, list) or not tokens:
        return Bad("tokens and tags are no two lists of texts")
    if len(tokens) != len(tags):
        return Bad(f"{len(tokens)} tokens and {len(tags)} tags")
    if not all(isinstance(word, str) and word.strip() for word in (*tokens, *tags)):
        return Bad("a token or tag is no text")
    good = all(tag == "O" or re.fullmatch(r"[BI]-\S.*", tag) for tag in tags)
    return None if good else Bad("a tag is neither O nor of the form B-NAME or I-NAME")


def questioned(row: Row) -> Bad | None:
    """A question about a text, with its answers."""
    if problem := filled(row, "context", "question"):
        return problem
    answers = row.get("answers")
    if not isinstance(answers, list):
        return Bad("answers are no list")
    for entry in answers:
        found = entry if isinstance(entry, dict) else {"text": entry}
        if filled(found, "text"):
            return Bad("an answer is no text")
        start = found.get("answer_start", 0)
        if isinstance(start, bool) or not isinstance(start, int | None):
            return Bad("an answer_start is no whole number")
    return None


def near(row: Row) -> Bad | None:
    """Texts that belong together, and perhaps one that does not."""
    return filled(row, "query", "positive", *(("negative",) if "negative" in row else ()))


def taught(row: Row) -> Bad | None:
    """A text, a prompt alone, or a question with its answer."""
    if "text" in row:
        return text(row)
    bare = "prompt" in row and not row.keys() & {"completion", "messages", "source"}
    return filled(row, "prompt") if bare else answered(row)


def prompted(row: Row) -> Bad | None:
    """A prompt, and how an answer to it is checked, where the row says so."""
    if problem := _said(row, "prompt"):
        return problem
    for name in ("answer", "pattern"):
        if name in row and filled(row, name):
            return Bad(f"no text under {name}")
    return None if isinstance(row.get("schema", {}), dict | bool) else Bad("schema is no JSON schema")


def _first_that_fits(**forms: Check) -> Check:
    """The check of the form whose key a row has; the last one where it has none."""

    def check(row: Row) -> Bad | None:
        found = next((form for key, form in forms.items() if key in row), [*forms.values()][-1])
        return found(row)

    return check


def asked(row: Row) -> Bad | None:
    """A question without its answer."""
    key = next((name for name in ("messages", "prompt", "question", "text") if name in row), "prompt")
    return messages(row[key], key) if key == "messages" else _said(row, key)


def tokens(row: Row) -> Bad | None:
    """Words without their tags, or a text."""
    if "tokens" not in row and "text" in row:
        return text(row)
    words = row.get("tokens")
    good = isinstance(words, list) and words and all(isinstance(word, str) and word.strip() for word in words)
    return None if good else Bad("tokens is no list of words")


def read_about(row: Row) -> Bad | None:
    """A question about a context."""
    return filled(row, "context", "question")


def told(row: Row) -> Bad | None:
    """A question with its answers, which may be several."""
    answer = row.get("answer")
    answers = answer if isinstance(answer, list) and answer else [answer]
    return filled(row, "question") or next(filter(None, (filled({"answer": one}, "answer") for one in answers)), None)


_SHOWN = _first_that_fits(messages=answered, source=answered, question=told, text=classified, prompt=answered)
SHAPES: Mapping[str, Check] = {
    "classification": classified,
    "supervised": answered,
    "language_modeling": text,
    "token_classification": tagged,
    "question_answering": questioned,
    "preference": _first_that_fits(completion=judged, prompt=compared),
    "reward": compared,
    "reinforcement": prompted,
    "distillation": taught,
    "embedding": near,
    "retrieval": text,
    "in_context": _SHOWN,
    "inference": asked,
}
"""Of training rows, or of those that are answered, by the method's name in the contract."""


def check_of(method: str, settings: Mapping[str, object]) -> Check | None:
    """Of the rows of a job's method with its settings; None for de-biasing, whose rows are of many kinds."""
    if method == "evaluation":
        return SHAPES[str(settings["task"])]
    if method == "preference":
        return judged if settings.get("loss") == "kto" else compared
    if method == "inference":
        return _INFERENCE[str(settings.get("task", "generate"))]
    return SHAPES.get(method)


_INFERENCE: Mapping[str, Check] = {
    "generate": asked,
    "classify": text,
    "embed": text,
    "tag": tokens,
    "answer": read_about,
}
LOOKS: tuple[tuple[frozenset[str], Check], ...] = (
    (frozenset({"prompt", "chosen"}), compared),
    (frozenset({"prompt", "rejected"}), compared),
    (frozenset({"tokens", "tags"}), tagged),
    (frozenset({"context", "question", "answers"}), questioned),
    (frozenset({"query", "positive"}), near),
    (frozenset({"prompt", "completion", "label"}), judged),
    (frozenset({"prompt", "completion"}), turns),
    (frozenset({"source", "target"}), turns),
    (frozenset({"messages"}), turns),
    (frozenset({"text", "label"}), classified),
    (frozenset({"text", "labels"}), classified),
)
"""Keys by which the first row of a file tells what its rows are, and what every row must then be."""


def look_of(row: Row) -> Check | None:
    """What rows like this one must be; None where it looks like none of them, as rows of a bias test set do."""
    if "kind" in row:
        return None
    return next((check for keys, check in LOOKS if keys <= row.keys()), None)
