# SPDX-License-Identifier: Apache-2.0
"""Masked language modelling (Devlin et al. 2019, arXiv:1810.04805, 3.1) of rows of `text`.

15 % of a text's tokens (at least one; never a special token) are targets; of these 80 % are masked, 10 % replaced by
some token and 10 % kept. Which ones, follows from the seed and the text alone: positions in order of
SHA-256("cloister/masks/v1" || u64be seed || text digest || u32be position), and what becomes of each from the same
hash. So every epoch and every resumed run sees the same masks, and so do runs before and after. `read` cuts texts
to max_seq_length tokens, special ones included; `pieces` cuts them into sequences of at most as many, of which all but
the first have a digest of their own. Keys other than text are ignored.
"""

from __future__ import annotations

import hashlib
import struct
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.nn import functional

from cloister_workers.messages import Metrics, RowReason
from cloister_workers.trainer.example import Example, Outcome, digest_of
from cloister_workers.trainer.forward import narrowed
from cloister_workers.trainer.metrics import token_metrics
from cloister_workers.trainer.padding import NO_TARGET, padded, rectangle
from cloister_workers.trainer.rows import text_of

_LABEL = b"cloister/masks/v1"
_KEPT, _MASKED, _REPLACED = 1, 2, 3  # in Example.learned


@dataclass(frozen=True)
class MaskedLanguageModel:
    """Text with gaps to the tokens that stood there."""

    tokenizer: Any
    max_seq_length: int
    micro_batch_size: int
    device: torch.device
    seed: int
    share: float = 0.15

    def read(self, rows: Sequence[dict[str, object]]) -> list[Example | RowReason]:
        return [self._example(row) for row in rows]

    def _example(self, row: dict[str, object]) -> Example | RowReason:
        found = self.pieces(row)
        return found if isinstance(found, RowReason) else found[0]

    def pieces(self, row: dict[str, object]) -> tuple[Example, ...] | RowReason:
        """The whole text in order; the first of several is marked as truncated."""
        text = text_of(row, "text")
        if isinstance(text, RowReason):
            return text
        cuts = self.tokenizer(text, truncation=True, max_length=self.max_seq_length, return_overflowing_tokens=True)[
            "input_ids"
        ]
        group = digest_of(text)
        made: list[Example] = []
        for cut in cuts:
            digest, long = (digest_of(text, len(made)), False) if made else (group, len(cuts) > 1)
            if learned := self._learned(cut, digest):
                made.append(Example(array("i", cut), group, digest, learned, truncated=long, piece=len(made)))
        return tuple(made) or RowReason.NO_COMPLETION

    def _learned(self, tokens: Sequence[int], digest: bytes) -> bytes:
        """What becomes of each token; empty where there are special tokens alone."""
        special = self.tokenizer.get_special_tokens_mask(tokens, already_has_special_tokens=True)
        places = [place for place, mark in enumerate(special) if not mark]
        ranks = {place: self._hash(digest, place) for place in places}
        learned = bytearray(len(tokens))
        for place in sorted(places, key=ranks.__getitem__)[: max(1, round(self.share * len(places)))]:
            learned[place] = _fate(ranks[place])
        return bytes(learned) if places else b""

    def micro_batches(self, batch: Sequence[Example]) -> list[list[Example]]:
        size = self.micro_batch_size
        return [list(batch[start : start + size]) for start in range(0, len(batch), size)]

    def with_micro_batch(self, size: int) -> MaskedLanguageModel:
        return replace(self, micro_batch_size=size)

    def weight(self, example: Example) -> int:
        return sum(map(bool, example.learned))

    def outcome(self, model: torch.nn.Module, examples: Sequence[Example]) -> Outcome:
        batch = padded([self.gaps(example) for example in examples], self.tokenizer.pad_token_id or 0, self.device)
        true = rectangle([_targets(example) for example in examples], NO_TARGET, self.device)
        owners, places = (true != NO_TARGET).nonzero(as_tuple=True)
        with narrowed(model, lambda hidden: hidden[owners, places][None]):
            logits = model(**batch).logits
        narrow = logits.shape[:2] == (1, len(owners))
        found, wanted = (logits[0] if narrow else logits[owners, places]).float(), true[owners, places]
        losses = functional.cross_entropy(found, wanted, reduction="none")
        sums = torch.zeros(len(examples), device=self.device).index_add(0, owners, losses)
        hits = (found.detach().argmax(-1) == wanted).long()
        return Outcome(sums, torch.zeros_like(true[:, 0]).index_add(0, owners, hits))

    def score(self, examples: Sequence[Example], sums: Sequence[float], predicted: Sequence[int]) -> Metrics:
        return token_metrics(sum(self.weight(example) for example in examples), sums, predicted)

    def gaps(self, example: Example) -> list[int]:
        """The tokens that the model sees in place of the example's own."""
        seen = example.tokens.tolist()
        for place, mark in enumerate(example.learned):
            if mark == _MASKED:
                seen[place] = self.tokenizer.mask_token_id
            elif mark == _REPLACED:
                seen[place] = int.from_bytes(self._hash(example.digest, place)[8:16]) % len(self.tokenizer)
        return seen

    def _hash(self, digest: bytes, place: int) -> bytes:
        return hashlib.sha256(_LABEL + struct.pack(">Q", self.seed) + digest + struct.pack(">I", place)).digest()


def _targets(example: Example) -> list[int]:
    """The token of each place that is a target."""
    marked = zip(example.tokens, example.learned, strict=True)
    return [token if mark else NO_TARGET for token, mark in marked]


def _fate(rank: bytes) -> int:
    """What becomes of a target, from bytes of its rank that do not decide on the order of a text of sane length."""
    drawn = int.from_bytes(rank[16:24]) / 2**64
    return _MASKED if drawn < 0.8 else _REPLACED if drawn < 0.9 else _KEPT
