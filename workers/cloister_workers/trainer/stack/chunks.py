# SPDX-License-Identifier: Apache-2.0
"""Documents cut into passages of so many tokens, each with its place in the document.

Windows of `tokens` tokens of the encoder's tokenizer share `overlap` tokens with the one before, at most half of
themselves; none crosses the end of a document, and none lies wholly inside the one before. A passage is the text from
its first token to its last, letter by letter as the document has it. A title stands before each passage of its
document and takes part of the tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from cloister_workers.messages import RowReason


@dataclass(frozen=True)
class Document:
    """One row: `id` is unique among the documents of an index."""

    id: str
    text: str
    title: str = ""


@dataclass(frozen=True)
class Chunk:
    """A passage: characters `start` to `end` (exclusive) of the document with number `document`."""

    document: int
    start: int
    end: int
    text: str
    """As it is embedded and shown: after the title of the document, where it has one."""


@dataclass(frozen=True)
class Chunker:
    """Cuts by one tokenizer, which must be a fast one (offsets)."""

    tokenizer: Any
    tokens: int
    overlap: int

    def problem(self, document: Document) -> RowReason | None:
        """Why a document cannot be cut: its title alone takes more than half of a passage."""
        return RowReason.TOO_LONG if len(self._offsets(document.title)) > self.tokens // 2 else None

    def cut(self, number: int, document: Document) -> Iterator[Chunk]:
        """The passages of the document with this number, in their order; none for a text without tokens."""
        head = f"{document.title}: " if document.title else ""
        size = self.tokens - len(self._offsets(head))
        offsets = self._offsets(document.text)
        step = max(size - self.overlap, (size + 1) // 2)
        for first in range(0, len(offsets), step):
            window = offsets[first : first + size]
            start, end = window[0][0], window[-1][1]
            yield Chunk(number, start, end, head + document.text[start:end])
            if first + size >= len(offsets):
                return

    def _offsets(self, text: str) -> list[tuple[int, int]]:
        """Where the tokens of a text begin and end; those without a letter, which some tokenizers make, left out."""
        found = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        return [(start, end) for start, end in found["offset_mapping"] if end > start]
