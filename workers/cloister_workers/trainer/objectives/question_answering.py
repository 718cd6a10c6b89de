# SPDX-License-Identifier: Apache-2.0
"""Question answering: rows of `context`, `question` and `answers`.

Extractive, by an encoder: the answer is a span of the context (`span.py`). Generative, by a causal model: the answer is
written after a prompt of context and question, and the first one is what is learned (as supervised, loss on the answer
alone); what the context does not say is answered with UNANSWERABLE. Both are measured by SQuAD's exact match and F1
against all answers of a row, on the longest span or the greedy continuation of at most max_answer_tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from cloister_workers.messages import Metrics, RowReason, SpecField
from cloister_workers.trainer.answers import answer_metrics
from cloister_workers.trainer.comprehension import parse_comprehension
from cloister_workers.trainer.example import Example, Outcome, digest_of
from cloister_workers.trainer.generation import Sampler
from cloister_workers.trainer.method import Setup, TrainingMethod, load_packed
from cloister_workers.trainer.model import Base, load_span_finder, need_encoder
from cloister_workers.trainer.objectives.chat import ChatReader
from cloister_workers.trainer.objectives.span import Extractive
from cloister_workers.trainer.objectives.supervised import Supervised
from cloister_workers.trainer.spec import REFUSE, Method, check, read_settings

PROMPT = "Context: {context}\nQuestion: {question}\nAnswer:"
UNANSWERABLE = "unanswerable"


@dataclass(frozen=True)
class Settings:
    """The method's own of the specification."""

    form: str = "extractive"
    max_answer_tokens: int = 30
    stride: int = 128

    def __post_init__(self) -> None:
        forms = ("extractive", "generative")
        check(self.form in forms, SpecField.FORM, f"one of {forms}", self.form)
        longest = self.max_answer_tokens
        check(1 <= longest <= 8192, SpecField.MAX_ANSWER_TOKENS, "1 to 8192", longest)
        check(self.stride >= 0, SpecField.STRIDE, "a whole number from 0", self.stride)


@dataclass(frozen=True, slots=True)
class Answered(Example):
    """An example that knows all right answers."""

    answers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Generative:
    """Prompt to answer; `likelihood` reads and weighs it. Rows of more than max_seq_length tokens are refused."""

    likelihood: Supervised
    tokenizer: Any
    max_seq_length: int
    max_answer_tokens: int

    def read(self, rows: Sequence[dict[str, object]]) -> list[Example | RowReason]:
        return [self._example(row) for row in rows]

    def _example(self, row: dict[str, object]) -> Example | RowReason:
        asked = parse_comprehension(row)
        if isinstance(asked, RowReason):
            return asked
        prompt = PROMPT.format(context=asked.context, question=asked.question)
        answer = asked.answers[0] if asked.answers else UNANSWERABLE
        read = self.likelihood.reader.read({"prompt": prompt, "completion": f" {answer}"})
        if isinstance(read, RowReason):
            return read
        return Answered(
            tokens=read.tokens,
            group=read.group,
            digest=digest_of(read.digest.hex(), list(asked.answers)),
            learned=read.learned,
            answers=asked.answers,
        )

    def micro_batches(self, batch: Sequence[Example]) -> list[list[Example]]:
        return self.likelihood.micro_batches(batch)

    def with_micro_batch(self, size: int) -> Generative:
        return replace(self, likelihood=self.likelihood.with_micro_batch(size))

    def weight(self, example: Example) -> int:
        return self.likelihood.weight(example)

    def outcome(self, model: torch.nn.Module, examples: Sequence[Example]) -> Outcome:
        return self.likelihood.outcome(model, examples)

    def score(self, examples: Sequence[Example], sums: Sequence[float], predicted: Sequence[int]) -> Metrics:
        return self.likelihood.score(examples, sums, predicted)

    def examine(
        self, model: torch.nn.Module, examples: Sequence[Example], before_batch: Callable[[], object]
    ) -> Metrics:
        """Exact match and F1 of what the model writes."""
        rows = [example for example in examples if isinstance(example, Answered)]
        prompts = [row.tokens[: row.learned.index(1)].tolist() for row in rows]
        sampler = Sampler(model, self.tokenizer, self.likelihood.device, before_batch)
        said = sampler.continued(prompts, self.max_answer_tokens)
        return answer_metrics(["" if text == UNANSWERABLE else text for text in said], [row.answers for row in rows])


def _objective(setup: Setup) -> Extractive | Generative:
    settings, wanted = read_settings(Settings, setup.settings), setup.hyperparameters
    if settings.form == "generative":
        fits = setup.too_long in ("", REFUSE)
        check(fits, SpecField.TOO_LONG, "refuse: a generative prompt is not cut", setup.too_long)
        reader = ChatReader(setup.tokenizer, wanted.max_seq_length)
        likelihood = Supervised(reader, wanted.micro_batch_size * wanted.max_seq_length, setup.device)
        return Generative(likelihood, setup.tokenizer, wanted.max_seq_length, settings.max_answer_tokens)
    need_encoder(setup.config)
    return Extractive(
        setup.tokenizer,
        wanted.max_seq_length,
        wanted.micro_batch_size,
        setup.device,
        settings.stride,
        settings.max_answer_tokens,
        setup.too_long,
    )


def _load(model_dir: str, objective: Extractive | Generative, device: torch.device) -> Base:
    if isinstance(objective, Generative):
        return load_packed(model_dir, objective, device)
    return load_span_finder(model_dir, device)


METHOD = TrainingMethod(name=Method.QUESTION_ANSWERING, objective=_objective, load=_load, padded=True)
