# SPDX-License-Identifier: Apache-2.0
"""Answers that stand in the text: where they begin and end, found by an encoder (Devlin et al. 2019, 4.2).

A context that does not fit into max_seq_length tokens beside its question is read in windows that share `stride` tokens
(at most half of what a window holds); all windows of a row are one example. A window's target is the span of the row's
first answer; where the window does not hold it, and where the row has no answer, it is the first token. The loss of a
window is the mean of the cross-entropies of start and end over its tokens; a step's loss is the mean over its windows.

The predicted answer is the span of at most max_answer_tokens with the largest sum of the two logits over all windows;
none, where the first token's sum is as large in every window.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.nn import functional

from cloister_workers.messages import MetricName, Metrics, RowReason
from cloister_workers.trainer.answers import answer_metrics
from cloister_workers.trainer.comprehension import Comprehension, parse_comprehension, parse_question
from cloister_workers.trainer.example import Example, Outcome, digest_of
from cloister_workers.trainer.packing import best_fit_decreasing
from cloister_workers.trainer.padding import padded_examples
from cloister_workers.trainer.spec import REFUSE, TRUNCATE

Span = tuple[int, int]
"""Start and end; of characters the end is behind the last, of tokens it is the last."""


@dataclass(frozen=True, slots=True)
class Window:
    """A question with a piece of its context. `offsets` are the characters of the context that the tokens from `first`
    on stand for; `target` are tokens.
    """

    tokens: array[int]
    segments: bytes
    first: int
    offsets: tuple[Span, ...]
    target: Span


@dataclass(frozen=True, slots=True)
class Windowed(Example):
    """A row in windows; `tokens` are those of all of them."""

    windows: tuple[Window, ...] = ()
    context: str = ""
    answers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Extractive:
    """Question and context to a span of the context. `too_long`: truncate keeps the first window alone."""

    tokenizer: Any
    max_seq_length: int
    micro_batch_size: int
    device: torch.device
    stride: int
    max_answer_tokens: int
    too_long: str = ""

    def read(self, rows: Sequence[dict[str, object]]) -> list[Example | RowReason]:
        return [self._example(row) for row in rows]

    def _example(self, row: dict[str, object]) -> Example | RowReason:
        asked = parse_comprehension(row)
        if isinstance(asked, RowReason):
            return asked
        span = asked.span()
        return span if isinstance(span, RowReason) else self._windowed(asked, span)

    def asked(self, row: dict[str, object]) -> Windowed | RowReason:
        """A row whose answer is wanted."""
        question = parse_question(row)
        return question if isinstance(question, RowReason) else self._windowed(question, None)

    def _windowed(self, asked: Comprehension, span: Span | None) -> Windowed | RowReason:
        windows = self._windows(asked, span)
        if not windows or (len(windows) > 1 and self.too_long == REFUSE):
            return RowReason.TOO_LONG
        cut = len(windows) > 1 and self.too_long == TRUNCATE
        kept = windows[:1] if cut else windows
        return Windowed(
            tokens=array("i", [token for window in kept for token in window.tokens]),
            group=digest_of(asked.context, asked.question),
            digest=digest_of(asked.context, asked.question, list(asked.answers), span),
            truncated=cut,
            windows=tuple(kept),
            context=asked.context,
            answers=asked.answers,
        )

    def _windows(self, asked: Comprehension, span: Span | None) -> list[Window]:
        """None where the question leaves no room for the context."""
        used = len(self.tokenizer(asked.question, add_special_tokens=False)["input_ids"])
        room = self.max_seq_length - used - self.tokenizer.num_special_tokens_to_add(pair=True)
        if room < 1:
            return []
        encoded = self.tokenizer(
            asked.question,
            asked.context,
            truncation="only_second",
            max_length=self.max_seq_length,
            stride=min(self.stride, room // 2),
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
        )
        types = encoded.get("token_type_ids") or [[] for _ in encoded["input_ids"]]
        windows = []
        for number, tokens in enumerate(encoded["input_ids"]):
            places = [place for place, part in enumerate(encoded.sequence_ids(number)) if part == 1]
            if not places:
                continue
            offsets = tuple((int(low), int(high)) for low, high in encoded["offset_mapping"][number])
            inside = offsets[places[0] : places[-1] + 1]
            target = _target(places[0], inside, span)
            windows.append(Window(array("i", tokens), bytes(types[number]), places[0], inside, target))
        return windows

    def micro_batches(self, batch: Sequence[Example]) -> list[list[Example]]:
        sizes = [len(_windowed(example).windows) for example in batch]
        rows = best_fit_decreasing(sizes, max(self.micro_batch_size, *sizes, 0))
        return [[batch[index] for index in row] for row in rows]

    def with_micro_batch(self, size: int) -> Extractive:
        return replace(self, micro_batch_size=size)

    def weight(self, example: Example) -> int:
        return len(_windowed(example).windows)

    def outcome(self, model: torch.nn.Module, examples: Sequence[Example]) -> Outcome:
        """`predicted` are characters of the context: [n, 2], empty for no answer."""
        rows = [_windowed(example) for example in examples]
        windows = [window for row in rows for window in row.windows]
        owners = torch.tensor([owner for owner, row in enumerate(rows) for _ in row.windows], device=self.device)
        starts, ends = self._logits(model, windows)
        first, last = torch.tensor([window.target for window in windows], device=self.device).unbind(1)
        losses = (_cross_entropy(starts, first) + _cross_entropy(ends, last)) / 2
        sums = torch.zeros(len(rows), device=self.device).index_add(0, owners, losses)
        if torch.is_grad_enabled():
            return Outcome(sums, torch.zeros(len(rows), 2, dtype=torch.int64))
        found = self._best(rows, starts.cpu(), ends.cpu())
        return Outcome(sums, torch.tensor([span if margin > 0 else (0, 0) for span, margin in found]))

    def answers(self, model: torch.nn.Module, examples: Sequence[Example]) -> list[tuple[Span, float]]:
        """Of each example the characters of the likeliest answer, and how far the sum of its two logits is above the
        least that says there is none: an answer is given where that is above 0.
        """
        rows = [_windowed(example) for example in examples]
        starts, ends = self._logits(model, [window for row in rows for window in row.windows])
        return self._best(rows, starts.cpu(), ends.cpu())

    def _logits(self, model: torch.nn.Module, windows: Sequence[Window]) -> tuple[torch.Tensor, torch.Tensor]:
        """Of start and end, float32 [windows, longest]; minus infinity where nothing stands."""
        batch = padded_examples(windows, self.tokenizer.pad_token_id, self.device)
        said = model(**batch)
        outside = batch["attention_mask"] == 0
        both = (said.start_logits, said.end_logits)
        starts, ends = (logits.float().masked_fill(outside, float("-inf")) for logits in both)
        return starts, ends

    def _best(self, rows: Sequence[Windowed], starts: torch.Tensor, ends: torch.Tensor) -> list[tuple[Span, float]]:
        found, number = [], 0
        for row in rows:
            best, span, nothing = float("-inf"), (0, 0), float("inf")
            for window in row.windows:
                inside = slice(window.first, window.first + len(window.offsets))
                score, (low, high) = _best_span(starts[number, inside], ends[number, inside], self.max_answer_tokens)
                if score > best:
                    best, span = score, (window.offsets[low][0], window.offsets[high][1])
                nothing = min(nothing, float(starts[number, 0] + ends[number, 0]))
                number += 1
            found.append((span, best - nothing))
        return found

    def score(self, examples: Sequence[Example], sums: Sequence[float], predicted: Sequence[Any]) -> Metrics:
        rows = [_windowed(example) for example in examples]
        said = [row.context[low:high] for row, (low, high) in zip(rows, predicted, strict=True)]
        return {
            MetricName.EVAL_LOSS: sum(sums) / sum(len(row.windows) for row in rows),
            MetricName.EVAL_ROWS: float(len(rows)),
            **answer_metrics(said, [row.answers for row in rows]),
        }


def _target(first: int, offsets: Sequence[Span], span: Span | None) -> Span:
    """The tokens of a span of characters; the first token where there is none, or not all of it in the window."""
    if span is None or span[0] < offsets[0][0] or span[1] > offsets[-1][1]:
        return 0, 0
    inside = [place for place, (low, high) in enumerate(offsets, first) if high > span[0] and low < span[1]]
    return (inside[0], inside[-1]) if inside else (0, 0)


def _best_span(starts: torch.Tensor, ends: torch.Tensor, longest: int) -> tuple[float, Span]:
    """The largest start + end with start <= end < start + longest, and where it is."""
    sums = starts[:, None] + ends[None, :]
    allowed = torch.ones_like(sums, dtype=torch.bool).triu().tril(longest - 1)
    place = int(sums.masked_fill(~allowed, float("-inf")).argmax())
    low, high = divmod(place, len(ends))
    return float(sums[low, high]), (low, high)


def _cross_entropy(logits: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(logits, true, reduction="none")


def _windowed(example: Example) -> Windowed:
    if not isinstance(example, Windowed):
        raise TypeError("an example of another method; read the rows with this objective")
    return example
