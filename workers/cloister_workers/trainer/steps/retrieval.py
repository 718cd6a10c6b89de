# SPDX-License-Identifier: Apache-2.0
"""Retrieval: documents become passages, passages vectors, and both a layer that is searched for every question.

Training rows are documents (`text`, optionally `id` and `title`); the auxiliary model is the encoder. With an
evaluation dataset of questions (`stack/questions.py`) two things are measured:

    recall@1, recall@top_k   the share of questions with a right passage among the nearest 1 or top_k, and MRR, the mean
                             of 1 / rank of the first right one among the nearest 100; after only, as there is no index
                             before
    answers                  where the model is causal: loss, exact match and F1 of the answers, before without passages
                             and after with them; weights and demonstrations of the start are in force in both
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from cloister_workers.errors import TrainerError
from cloister_workers.messages import (
    DatasetRole,
    EvaluationPhase,
    FailureCode,
    FailureNumber,
    MetricName,
    Metrics,
    Result,
    SpecField,
    Stage,
)
from cloister_workers.trainer.bundle import write_bundle
from cloister_workers.trainer.model import load_config, load_tokenizer
from cloister_workers.trainer.place import Inputs, Workplace, stage
from cloister_workers.trainer.ranking import rank_metrics
from cloister_workers.trainer.running import Job
from cloister_workers.trainer.session import Session
from cloister_workers.trainer.spec import Method, TrainingSpec, check, read_settings
from cloister_workers.trainer.stack.chunks import Chunk, Chunker, Document
from cloister_workers.trainer.stack.encoder import Encoder
from cloister_workers.trainer.stack.exam import Exam, answering, writes
from cloister_workers.trainer.stack.index import Index
from cloister_workers.trainer.stack.layers import Stack, job_encoder, read_stack
from cloister_workers.trainer.stack.questions import Asked, DocumentReader, QuestionReader
from cloister_workers.trainer.stack.reading import read_input
from cloister_workers.trainer.steps import JobStep

DEPTH = 100
"""Passages among which the first right one is looked for; top_k is at most as many."""
_LONGEST = 4096  # tokens of a prompt, where the model's configuration allows more or says nothing
_BLOCK = 512  # passages embedded between two progress messages


@dataclass(frozen=True, kw_only=True)
class Settings:
    """`method.retrieval` of the specification."""

    chunk_tokens: int = 128
    overlap: int = 16
    top_k: int = 4
    max_new_tokens: int = 64

    def __post_init__(self) -> None:
        check(8 <= self.chunk_tokens <= 8192, SpecField.CHUNK_TOKENS, "8 to 8192", self.chunk_tokens)
        half = self.chunk_tokens // 2
        check(0 <= self.overlap <= half, SpecField.OVERLAP, f"0 to half of chunk_tokens, {half}", self.overlap)
        check(1 <= self.top_k <= DEPTH, SpecField.TOP_K, f"1 to {DEPTH}", self.top_k)


def run(spec: TrainingSpec, inputs: Inputs, place: Workplace, session: Session) -> None:
    """Run a retrieval job to its Result. Raises TrainerError or Cancelled."""
    settings, job = read_settings(Settings, spec.settings), Job(spec, inputs, place, session)
    start = replace(read_stack(inputs, place.scratch), index=None)
    with stage(session, Stage.VALIDATE):
        encoder = _encoder(settings, start, job)
        chunker = Chunker(encoder.tokenizer, settings.chunk_tokens, settings.overlap)
        found = read_input(DatasetRole.TRAINING, job, DocumentReader(chunker).read)
        documents = [given.value for given in found]
        asked = _questions(documents, start, job)
    with stage(session, Stage.INDEX):
        chunks = [chunk for number, entry in enumerate(documents) for chunk in chunker.cut(number, entry)]
        if not chunks:
            raise TrainerError(
                FailureCode.TOO_FEW_ROWS, "no document has a token to index", {FailureNumber.ROWS: len(documents)}
            )
        index = _indexed(settings, documents, chunks, encoder, job)
    with stage(session, Stage.EVALUATE):
        after = _evaluate(settings, start, index, encoder, asked, job)
    with stage(session, Stage.EXPORT):
        descriptor = write_bundle(index.files())
    final = {**after, MetricName.CHUNKS: float(len(chunks))}
    session.hand_over(Result(step=0, metrics=final, trained_tokens=0), descriptor)


def recall(index: Index, vectors: torch.Tensor, asked: Sequence[Asked]) -> Metrics:
    """Recall@1 and @top_k with Wilson's intervals, and MRR, of questions with these vectors, float32 [q, d]."""
    ranks = [
        next((rank for rank, hit in enumerate(hits, start=1) if question.is_right(index.chunks[hit.chunk])), 0)
        for question, hits in zip(asked, index.search(vectors, DEPTH), strict=True)
    ]
    return {MetricName.EVAL_ROWS: float(len(ranks)), **rank_metrics(ranks, index.top_k)}


def _encoder(settings: Settings, start: Stack, job: Job) -> Encoder:
    """The job's encoder. Raises SpecError where it would cut passages off."""
    encoder = job_encoder(start, job)
    fits = settings.chunk_tokens <= encoder.longest
    check(fits, SpecField.CHUNK_TOKENS, f"up to {encoder.longest}, all the encoder takes", settings.chunk_tokens)
    return encoder


def _questions(documents: Sequence[Document], start: Stack, job: Job) -> list[Asked]:
    if DatasetRole.EVALUATION not in job.inputs:
        return []
    tokenizer = load_tokenizer(start.tokenizer_dir(job.place.model_dir))
    reader = QuestionReader(documents, chat=tokenizer.chat_template is not None)
    found = read_input(DatasetRole.EVALUATION, job, reader.read)
    return [given.value for given in found]


def _indexed(
    settings: Settings,
    documents: Sequence[Document],
    chunks: Sequence[Chunk],
    encoder: Encoder,
    job: Job,
) -> Index:
    """The index of all passages; progress counts them."""
    vectors = [encoder.passages([chunk.text for chunk in block]).half().cpu() for block in job.counted(chunks, _BLOCK)]
    return Index(
        documents=tuple(document.id for document in documents),
        chunks=tuple(chunks),
        vectors=torch.cat(vectors),
        encoder=encoder.digest,
        top_k=settings.top_k,
        settings={"chunk_tokens": settings.chunk_tokens, "overlap": settings.overlap},
    )


def _evaluate(
    settings: Settings, start: Stack, index: Index, encoder: Encoder, asked: Sequence[Asked], job: Job
) -> Metrics:
    """Tell what is measured before and after, and return the latter."""
    before: Metrics = {}
    after: Metrics = {}
    shots = [question.shot for question in asked if question.shot is not None]
    config = load_config(start.model_dir(job.place.model_dir))
    if shots and writes(config):
        exam, rows = Exam(answering(_LONGEST, settings.max_new_tokens), start, encoder, job), [s.row() for s in shots]
        before = exam.measure(start, rows, shots)
        after = exam.measure(replace(start, index=index), rows, shots)
    job.session.evaluated(EvaluationPhase.BEFORE, 0, before)
    if asked:
        after = {**after, **recall(index, encoder.questions([question.text for question in asked]), asked)}
    job.session.evaluated(EvaluationPhase.AFTER, 0, after)
    return after


STEP = JobStep(name=Method.RETRIEVAL, run=run)
