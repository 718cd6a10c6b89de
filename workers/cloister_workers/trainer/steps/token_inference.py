# SPDX-License-Identifier: Apache-2.0
"""Batch inference by encoders with a head over tokens: a tag for each token, or where in a context an answer stands.

How rows become tokens, and tags or spans come of the logits, is the training objective's, so that a version answers as
it was measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch

from cloister_workers.errors import SpecError
from cloister_workers.messages import DatasetRole, FailureCode, SpecField, Stage
from cloister_workers.trainer.dataset import Given
from cloister_workers.trainer.example import Example
from cloister_workers.trainer.layer import applied, labels_of
from cloister_workers.trainer.model import (
    load_config,
    load_span_finder,
    load_tagger,
    load_tokenizer,
    longest_sequence,
    need_encoder,
)
from cloister_workers.trainer.objectives.question_answering import Settings as Reading
from cloister_workers.trainer.objectives.span import Extractive
from cloister_workers.trainer.objectives.token_classification import TokenClassification, word_space
from cloister_workers.trainer.place import stage
from cloister_workers.trainer.running import Job
from cloister_workers.trainer.stack.layers import Stack
from cloister_workers.trainer.stack.reading import read_input

Line = dict[str, object]
E = TypeVar("E", bound=Example)
A = TypeVar("A")


@dataclass(frozen=True)
class Pace:
    """Rows (of long contexts, windows) at one time, and tokens a row (or window) may have."""

    batch_size: int
    max_seq_length: int


def tag_rows(whole: Stack, job: Job, pace: Pace) -> Iterator[tuple[int, Line]]:
    """Each row's `tokens`, the tag of each in `tags`, and how many at the end were beyond the cut (`unread`), which
    are O. Raises SpecError where the model tags nothing, RowsRefused.
    """
    with stage(job.session, Stage.VALIDATE):
        folder, tokenizer, longest = _headed(whole, job, pace, "tag", "ForTokenClassification")
        labels = whole.weights.labels if whole.weights else labels_of(folder)
        device = job.place.device
        objective = TokenClassification(
            tokenizer, longest, pace.batch_size, device, labels, space=word_space(tokenizer)
        )
        rows = read_input(DatasetRole.EVALUATION, job, lambda rows: [objective.asked(row) for row in rows])
        model = applied(load_tagger(folder, labels, device), whole.weights)
    with stage(job.session, Stage.INFER):
        for row, tags in _said(job, rows, objective, pace, lambda some: objective.tags(model, some)):
            words = row.value.words
            yield row.number, {"tokens": list(words), "tags": tags, "unread": len(words) - len(row.value.firsts)}


def find_answers(whole: Stack, job: Job, pace: Pace, max_answer_tokens: int) -> Iterator[tuple[int, Line]]:
    """Each row's `answer`, its characters in the context (`start`, and `end` behind the last) and its `score`; empty,
    0 and 0 where the context has none. Raises SpecError where the model finds no spans, RowsRefused.
    """
    with stage(job.session, Stage.VALIDATE):
        folder, tokenizer, longest = _headed(whole, job, pace, "answer", "ForQuestionAnswering")
        objective = Extractive(
            tokenizer, longest, pace.batch_size, job.place.device, Reading().stride, max_answer_tokens
        )
        rows = read_input(DatasetRole.EVALUATION, job, lambda rows: [objective.asked(row) for row in rows])
        model = applied(load_span_finder(folder, job.place.device), whole.weights)
    with stage(job.session, Stage.INFER):
        for row, (span, margin) in _said(job, rows, objective, pace, lambda some: objective.answers(model, some)):
            start, end = span if margin > 0 else (0, 0)
            answer = row.value.context[start:end]
            yield row.number, {"answer": answer, "start": start, "end": end, "score": round(margin, 6)}


def _headed(whole: Stack, job: Job, pace: Pace, task: str, ending: str) -> tuple[str, Any, int]:
    """Folder of the whole weights, tokenizer, and tokens at most, of a model with a head that the task needs."""
    folder = whole.model_dir(job.place.model_dir)
    config = load_config(folder)
    need_encoder(config)
    # Of an adapter its own file says what head it has; `applied` looks there.
    plain = whole.weights is None or whole.weights.adapter is None
    if plain and not any(str(name).endswith(ending) for name in config.architectures or ()):
        maker = "token_classification" if task == "tag" else "extractive question_answering"
        raise SpecError(
            FailureCode.SPEC_INVALID,
            SpecField.TASK,
            f"task is {task}, and the model has no trained head for it; name a version that {maker} made",
        )
    tokenizer = load_tokenizer(whole.tokenizer_dir(job.place.model_dir), padded=True)
    return folder, tokenizer, longest_sequence(config, tokenizer, pace.max_seq_length)


class _Batching(Protocol):
    def micro_batches(self, batch: Sequence[Example]) -> list[list[Example]]: ...


def _said(
    job: Job,
    rows: Sequence[Given[E]],
    objective: _Batching,
    pace: Pace,
    answers: Callable[[Sequence[Example]], Sequence[A]],
) -> Iterator[tuple[Given[E], A]]:
    """Each row, in order, and what the model says of it."""
    for some in job.counted(rows, pace.batch_size):
        made: dict[int, A] = {}
        for micro in objective.micro_batches([row.value for row in some]):
            job.poll()
            with torch.no_grad():
                made |= zip(map(id, micro), answers(micro), strict=True)
        for row in some:
            yield row, made[id(row.value)]
