# SPDX-License-Identifier: Apache-2.0
"""Plain language modelling of rows of `text`: every token is learned, packed as `supervised` packs.

A text stands between the token that starts texts (see `start_tokens`) and the end-of-text token, where the tokenizer
has them. `read` cuts texts to max_seq_length tokens. `pieces` cuts them into sequences of at most as many, each of
which starts with the last token of the one before, so every token is a target once. Keys other than text are ignored.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from cloister_workers.messages import RowReason
from cloister_workers.trainer.example import Example, digest_of
from cloister_workers.trainer.objectives.supervised import Supervised
from cloister_workers.trainer.rows import text_of
from cloister_workers.trainer.spec import REFUSE


def start_tokens(tokenizer: Any, tokens: Sequence[int]) -> list[int]:  # noqa: ANN401 - transformers' own type is dynamic
    """What to put before `tokens` so that the first of the text is predicted too: nothing where the tokenizer put a
    special token there, else the end-of-text token, else the beginning-of-text token.
    """
    if tokens and tokens[0] in tokenizer.all_special_ids and tokens[0] != tokenizer.unk_token_id:
        return []
    found = (tokenizer.eos_token_id, tokenizer.bos_token_id)
    return [int(token) for token in found if token is not None][:1]


@dataclass(frozen=True)
class CorpusReader:
    """Reads rows of `text` with one tokenizer."""

    tokenizer: Any
    max_seq_length: int

    def read(self, row: dict[str, object]) -> Example | RowReason:
        found = self.pieces(row)
        return found if isinstance(found, RowReason) else found[0]

    def pieces(self, row: dict[str, object]) -> tuple[Example, ...] | RowReason:
        """The whole text in order; the first of several is marked as truncated."""
        text = text_of(row, "text")
        if isinstance(text, RowReason):
            return text
        own, end = self.tokenizer(text, verbose=False)["input_ids"], self.tokenizer.eos_token_id
        tokens = array("i", [*start_tokens(self.tokenizer, own), *own])
        if end is not None and tokens[-1] != end:
            tokens.append(end)
        if len(tokens) < 2:
            return RowReason.NO_COMPLETION
        stride, group = self.max_seq_length - 1, digest_of(text)
        cuts = [tokens[start : start + stride + 1] for start in range(0, len(tokens) - 1, stride)]
        return tuple(
            Example(
                tokens=cut,
                group=group,
                digest=digest_of(text, piece) if piece else group,
                learned=bytes([0]) + bytes([1]) * (len(cut) - 1),
                truncated=piece == 0 and len(cuts) > 1,
                piece=piece,
            )
            for piece, cut in enumerate(cuts)
        )


def fitting(pieces: tuple[Example, ...] | RowReason, too_long: str) -> tuple[Example, ...] | RowReason:
    """A document's examples as the specification wants long ones: all of them, the first alone, or refused."""
    if isinstance(pieces, RowReason) or len(pieces) == 1 or not too_long:
        return pieces
    return RowReason.TOO_LONG if too_long == REFUSE else pieces[:1]


def language_model(
    tokenizer: Any,  # noqa: ANN401
    max_seq_length: int,
    micro_batch_size: int,
    device: torch.device,
) -> Supervised:
    """The objective: the supervised one with whole texts as completions."""
    return Supervised(CorpusReader(tokenizer, max_seq_length), micro_batch_size * max_seq_length, device)
