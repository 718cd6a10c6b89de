# SPDX-License-Identifier: Apache-2.0
"""Questions to whole prompts: demonstrations first, then passages, then the question itself.

A plain text becomes `demonstration LF LF demonstration LF LF [1] passage LF [2] passage LF LF question`; passages stand
before the question as in REPLUG (Shi et al. 2023, arXiv:2301.12652), and are numbered so that an answer can cite them.
In a chat, demonstrations are turns after the system's message, and passages stand in the user's last message. A text
whose demonstrations are chats is asked as a chat.

What does not fit into the room is dropped: demonstrations from the one farthest from the question, then passages from
the farthest, since they hold what an answer is made of. The question itself is never cut here.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from cloister_workers.trainer.prompts import Message, Prompt, prompt_tokens
from cloister_workers.trainer.stack.demonstrations import NOTHING, Demonstrations
from cloister_workers.trainer.stack.encoder import Encoder
from cloister_workers.trainer.stack.index import Index
from cloister_workers.trainer.stack.shots import Shot, last_question

CITE = "Use these passages where they help, and cite them by their numbers."
"""What a chat is told; a plain text is continued, not told."""


@dataclass(frozen=True)
class Question:
    """What is asked, and how much may be put before it."""

    prompt: Prompt
    room: int
    """Tokens that the whole prompt may have."""
    exclude: frozenset[bytes] = NOTHING
    """Digests of questions whose demonstrations are not shown."""
    query: str = ""
    """What it is searched by, where that is not the prompt itself."""


@dataclass(frozen=True)
class Composed:
    """A whole prompt, and what is in it."""

    prompt: Prompt
    chunks: tuple[int, ...] = ()
    """Numbers in the index of the passages shown; the first is [1]."""
    shots: int = 0
    dropped: int = 0
    """Demonstrations and passages for which there was no room."""


@dataclass(frozen=True)
class Composer:
    """What puts demonstrations and passages before questions; with neither, prompts are the questions."""

    tokenizer: Any
    """The model's, with a chat template."""
    index: Index | None
    demonstrations: Demonstrations | None
    encoder: Encoder | None
    """There where index or demonstrations have vectors, and the one that made them."""

    def compose(self, questions: Sequence[Question]) -> list[Composed]:
        """One whole prompt for each question."""
        vectors = self._vectors(questions)
        found: list[list[int]] = [[] for _ in questions]
        if self.index is not None and vectors is not None:
            found = [[hit.chunk for hit in hits] for hits in self.index.search(vectors, self.index.top_k)]
        return [
            self._composed(question, chunks, self._shots(question, None if vectors is None else vectors[place]))
            for place, (question, chunks) in enumerate(zip(questions, found, strict=True))
        ]

    def _vectors(self, questions: Sequence[Question]) -> torch.Tensor | None:
        if self.encoder is None or not questions:
            return None
        return self.encoder.questions([question.query or last_question(question.prompt) for question in questions])

    def _shots(self, question: Question, vector: torch.Tensor | None) -> list[Shot]:
        return self.demonstrations.shown(vector, question.exclude) if self.demonstrations is not None else []

    def _composed(self, question: Question, chunks: list[int], shots: list[Shot]) -> Composed:
        total = len(shots) + len(chunks)

        def kept(dropped: int) -> tuple[list[Shot], list[int]]:
            return shots[dropped:], chunks[: total - max(dropped, len(shots))]

        def prompt(dropped: int) -> Prompt:
            shown, places = kept(dropped)
            return joined(question.prompt, shown, [self._passage(place) for place in places])

        def fits(dropped: int) -> bool:
            return len(prompt_tokens(self.tokenizer, prompt(dropped))) <= question.room

        dropped = bisect_left(range(total), True, key=fits)
        shown, places = kept(dropped)
        return Composed(prompt(dropped), tuple(places), len(shown), dropped)

    def _passage(self, place: int) -> str:
        return "" if self.index is None else self.index.chunks[place].text


def joined(question: Prompt, shots: Sequence[Shot], passages: Sequence[str]) -> Prompt:
    """The whole prompt of a question, with these demonstrations and passages."""
    numbered = "\n".join(f"[{number}] {text}" for number, text in enumerate(passages, start=1))
    if isinstance(question, str) and all(isinstance(shot.prompt, str) for shot in shots):
        shown = [f"{shot.prompt}{shot.completion}" for shot in shots]
        return "\n\n".join([*shown, *([numbered] if passages else []), question])
    messages = _chat(question, "user")
    turns = [turn for shot in shots for turn in (*_chat(shot.prompt, "user"), *_chat(shot.completion, "assistant"))]
    first = next((place for place, message in enumerate(messages) if message["role"] != "system"), len(messages))
    last = _last_question(messages)
    if passages:
        content = f"{CITE}\n{numbered}\n\n{messages[last]['content']}"
        messages[last] = {**messages[last], "content": content}
    return [*messages[:first], *turns, *messages[first:]]


def _chat(prompt: Prompt, role: str) -> list[Message]:
    return [{"role": role, "content": prompt.strip()}] if isinstance(prompt, str) else list(prompt)


def _last_question(messages: Sequence[Message]) -> int:
    asked_at = [place for place, message in enumerate(messages) if message["role"] == "user"]
    return asked_at[-1] if asked_at else len(messages) - 1
