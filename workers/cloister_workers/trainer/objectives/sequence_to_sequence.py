# SPDX-License-Identifier: Apache-2.0
"""Supervised fine-tuning of an encoder-decoder such as T5 or BART: rows of `source` and `target`, of `prompt` and
`completion`, or of `messages`.

The encoder reads the source, the decoder learns the target with its end-of-text token, both with the tokenizer's
special tokens. Of a chat the target is the last assistant turn that is learned, and the source all before it: the
contents of the messages, a line end between them, or what a chat template of the tokenizer's own writes; so inference
asks. A batch is padded; padded targets cost nothing. A source of more than max_seq_length tokens, or than the encoder
has positions for, is refused, or cut at its end with `truncate`; a target that is too long for them or for the decoder
is always refused. In an `Example`, `tokens` is the source and `other` the target.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.nn import functional

from cloister_workers.messages import Metrics, RowReason
from cloister_workers.trainer.example import Example, Outcome, digest_of
from cloister_workers.trainer.generation import Sampler
from cloister_workers.trainer.metrics import token_metrics
from cloister_workers.trainer.padding import NO_TARGET, padded, rectangle, slices
from cloister_workers.trainer.prompts import REFUSALS, Message, Prompt, checked_messages, prompt_tokens
from cloister_workers.trainer.rows import text_of
from cloister_workers.trainer.text_metrics import NO_METRICS, answer_scores


@dataclass(frozen=True)
class SequenceToSequence:
    """Source to target."""

    tokenizer: Any
    max_seq_length: int
    micro_batch_size: int
    device: torch.device
    max_target_length: int
    truncate: bool = False
    metrics: str = NO_METRICS
    """What generated answers are measured by: one of `text_metrics.SCORES`, or nothing."""
    max_new_tokens: int = 64

    def read(self, rows: Sequence[dict[str, object]]) -> list[Example | RowReason]:
        return [self._example(row) for row in rows]

    def _example(self, row: dict[str, object]) -> Example | RowReason:
        found = _chat(row) if "messages" in row or isinstance(row.get("prompt"), list) else _texts(row)
        if isinstance(found, RowReason):
            return found
        source, target = found
        try:
            given = prompt_tokens(self.tokenizer, source, whole=True)
        except REFUSALS:
            return RowReason.TEMPLATE_REFUSED
        wanted = self.tokenizer(text_target=target)["input_ids"]
        end = self.tokenizer.eos_token_id
        if end is not None and wanted[-1:] != [end]:
            wanted = [*wanted, end]
        cut = len(given) > self.max_seq_length
        if len(wanted) > self.max_target_length or (cut and not self.truncate):
            return RowReason.TOO_LONG
        if cut:
            given = prompt_tokens(self.tokenizer, source, whole=True, longest=self.max_seq_length)
        if not given:
            return RowReason.EMPTY_TEXT
        group, digest = digest_of(source), digest_of(source, target)
        answer = Example(tokens=array("i", wanted), group=group, digest=digest)
        return Example(tokens=array("i", given), group=group, digest=digest, truncated=cut, other=answer)

    def micro_batches(self, batch: Sequence[Example]) -> list[list[Example]]:
        return slices(batch, self.micro_batch_size, lambda example: example.size)

    def with_micro_batch(self, size: int) -> SequenceToSequence:
        return replace(self, micro_batch_size=size)

    def weight(self, example: Example) -> int:
        return len(_target(example))

    def outcome(self, model: torch.nn.Module, examples: Sequence[Example]) -> Outcome:
        batch = padded([example.tokens for example in examples], int(self.tokenizer.pad_token_id), self.device)
        labels = rectangle([_target(example) for example in examples], NO_TARGET, self.device)
        logits = model(**batch, labels=labels).logits.float()
        losses = functional.cross_entropy(logits.transpose(1, 2), labels, reduction="none", ignore_index=NO_TARGET)
        hits = (logits.detach().argmax(-1) == labels) & (labels != NO_TARGET)
        return Outcome(losses.sum(1), hits.sum(1))

    def examine(
        self, model: torch.nn.Module, examples: Sequence[Example], before_batch: Callable[[], object]
    ) -> Metrics:
        """Metrics of the generated targets."""
        if self.metrics == NO_METRICS:
            return {}
        sampler = Sampler(model, self.tokenizer, self.device, before_batch)
        sources, targets = [example.tokens for example in examples], [_target(example) for example in examples]
        return answer_scores(self.metrics, sampler, sources, targets, self.max_new_tokens)

    def score(self, examples: Sequence[Example], sums: Sequence[float], predicted: Sequence[int]) -> Metrics:
        return token_metrics(sum(self.weight(example) for example in examples), sums, predicted)


def _texts(row: dict[str, object]) -> tuple[Prompt, str] | RowReason:
    names = ("source", "target") if "source" in row or "prompt" not in row else ("prompt", "completion")
    source, target = (text_of(row, name) for name in names)
    if isinstance(source, RowReason):
        return source
    return target if isinstance(target, RowReason) else (source, target)


def _chat(row: dict[str, object]) -> tuple[Prompt, str] | RowReason:
    """The last assistant turn that is learned, and the messages before it."""
    before: list[Message] | RowReason = [] if "messages" in row else checked_messages(row["prompt"])
    name = "messages" if "messages" in row else "completion"
    said = checked_messages(row[name]) if name in row else RowReason.MISSING_KEY
    if isinstance(before, RowReason):
        return before
    if isinstance(said, RowReason):
        return said
    learned = [place for place, turn in enumerate(said) if turn["role"] == "assistant" and turn.get("weight", 1) != 0]
    given = [*before, *said[: learned[-1]]] if learned else []
    if not given:
        return RowReason.NO_COMPLETION
    target = said[learned[-1]]
    if row.get("tools") or target.get("tool_calls"):
        return RowReason.TEMPLATE_REFUSED
    return [{key: value for key, value in turn.items() if key != "weight"} for turn in given], target["content"]


def _target(example: Example) -> array[int]:
    if example.other is None:
        raise AssertionError("an example of a sequence-to-sequence objective has a target")
    return example.other.tokens
