# SPDX-License-Identifier: Apache-2.0
"""Rows of `text`, or of `text` and `text_pair`, as tokens."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from cloister_workers.messages import RowReason
from cloister_workers.trainer.example import Example
from cloister_workers.trainer.rows import text_of

Texts = tuple[str, ...]
"""One text, or two that belong together."""
T = TypeVar("T")


@dataclass(frozen=True)
class Encoded:
    """Token ids, the token type of each (empty: the model has none, or there is one text), and whether it was cut."""

    tokens: array[int]
    segments: bytes
    truncated: bool


@dataclass(frozen=True)
class TextReader:
    """Reads texts with one fast tokenizer. Longer ones are cut to max_seq_length tokens, special tokens included (of
    a pair the longer text first), or refused.
    """

    tokenizer: Any
    max_seq_length: int
    refuse: bool = False

    def examples(
        self,
        rows: Sequence[dict[str, object]],
        target: Callable[[dict[str, object]], T | RowReason],
        make: Callable[[Texts, Encoded, T], Example],
    ) -> list[Example | RowReason]:
        """One example or reason per row: of its texts, and what `target` finds in it."""
        parsed = [_parsed(row, target) for row in rows]
        good = [entry for entry in parsed if not isinstance(entry, RowReason)]
        encoded = iter(self.encode([texts for texts, _ in good]))
        made: list[Example | RowReason] = []
        for entry in parsed:
            if isinstance(entry, RowReason):
                made.append(entry)
                continue
            found = next(encoded)
            made.append(RowReason.TOO_LONG if found.truncated and self.refuse else make(entry[0], found, entry[1]))
        return made

    def encode(self, texts: Sequence[Texts]) -> list[Encoded]:
        """Each text or pair, in their order."""
        found: dict[int, Encoded] = {}
        for size in {len(entry) for entry in texts}:
            places = [place for place, entry in enumerate(texts) if len(entry) == size]
            columns = zip(*(texts[place] for place in places), strict=True)
            whole = self.tokenizer(*map(list, columns))
            for number, place in enumerate(places):
                found[place] = self._encoded(texts[place], whole, number)
        return [found[place] for place in range(len(texts))]

    def _encoded(self, texts: Texts, whole: Mapping[str, list[list[int]]], number: int) -> Encoded:
        one: dict[str, list[int]] = {name: rows[number] for name, rows in whole.items()}
        truncated = len(one["input_ids"]) > self.max_seq_length
        if truncated:
            one = dict(self.tokenizer(*texts, truncation=True, max_length=self.max_seq_length))
        segments = bytes(one.get("token_type_ids", b"")) if len(texts) > 1 else b""
        return Encoded(array("i", one["input_ids"]), segments, truncated)


def texts_of(row: Mapping[str, object]) -> Texts | RowReason:
    """`text`, and `text_pair` where the row has it."""
    found = []
    for key in ("text", "text_pair") if "text_pair" in row else ("text",):
        text = text_of(dict(row), key)
        if isinstance(text, RowReason):
            return text
        found.append(text)
    return tuple(found)


def _parsed(
    row: dict[str, object], target: Callable[[dict[str, object]], T | RowReason]
) -> tuple[Texts, T] | RowReason:
    texts = texts_of(row)
    if isinstance(texts, RowReason):
        return texts
    wanted = target(row)
    return wanted if isinstance(wanted, RowReason) else (texts, wanted)
