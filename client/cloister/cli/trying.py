# SPDX-License-Identifier: Apache-2.0
"""`cloister model try`: questions and answers on a terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cloister.cli.output import print_json

if TYPE_CHECKING:
    from cloister.client import Client
    from cloister.trying import Question


def answer_all(
    client: Client, question: Question, texts: tuple[str, ...], *, context: str, chat: bool, as_json: bool
) -> None:
    """Answer each text, or what is typed until the end of input; with `chat` a model is shown what was said before."""
    from cloister.trying import ask, row_of

    said: list[dict[str, str]] = []
    for text in texts or _typed():
        row = row_of(question.task, text, said, context=context)
        if chat and not said:
            row = {"messages": [{"role": "user", "content": text}]}
        answer = ask(client, question, row)
        if as_json:
            print_json(answer)
        else:
            click.echo(_shown(answer))
        if chat:
            said += [{"role": "user", "content": text}, {"role": "assistant", "content": str(answer.get("answer", ""))}]


def read_context(path: Path) -> str:
    """The text that questions are about.  Raises UsageError where the file is none."""
    from cloister.errors import UsageError

    try:
        return path.read_text("utf-8")
    except ValueError:
        raise UsageError(f"{path} is no UTF-8 text; give the context as one") from None


def _typed() -> Iterator[str]:
    """Lines from the terminal, or from a pipe."""
    asks = sys.stdin.isatty()
    while True:
        if asks:
            click.echo("> ", nl=False, err=True)
        line = sys.stdin.readline()
        if not line:
            return
        if line.strip():
            yield line.strip()


def _shown(answer: Mapping[str, object]) -> str:
    """An answer without anything that a terminal would act on, and the passages that it cites."""
    tokens, tags = answer.get("tokens"), answer.get("tags")
    if isinstance(tokens, list) and isinstance(tags, list):
        lines = [f"{token}  {tag}" for token, tag in zip(tokens, tags, strict=True)]
    elif "score" in answer:
        found = f"{answer['answer']}  [{answer['start']}:{answer['end']}]" if answer["answer"] else "(no answer)"
        lines = [f"{found}  {answer['score']}"]
    elif "answer" in answer:
        lines = [str(answer["answer"])]
        passages = answer.get("passages")
        lines += [f"  {json.dumps(passage)}" for passage in passages] if isinstance(passages, list) else []
    elif "label" in answer:
        lines = [str(answer["label"])]
    else:
        lines = [json.dumps({name: value for name, value in answer.items() if name != "row"})]
    return "\n".join("".join(char if char.isprintable() else " " for char in line) for line in lines)
