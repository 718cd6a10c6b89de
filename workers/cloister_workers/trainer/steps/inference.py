# SPDX-License-Identifier: Apache-2.0
"""Batch inference: one line of answer for each row, in their order, sealed to the member who asked.

    generate   rows of `prompt`, `messages`, `question` or `text`: {"row", "answer", "passages", "demonstrations",
               "dropped"}; the version's demonstrations and passages stand before the question, and each passage shown
               is listed with its number, document and characters, and whether the answer cites it as [number]
    classify   rows of `text`, and `text_pair`: {"row", "label", "probabilities"}, or {"row", "labels", ...} or {"row",
               "value"} for models of several labels or of a number
    embed      rows of `text`: {"row", "vector"}
    tag        rows of `tokens`, or of `text`: {"row", "tokens", "tags", "unread"} (`token_inference.py`)
    answer     rows of `context` and `question`: {"row", "answer", "start", "end", "score"} (the same)

`row` is the number of the line in the dataset. Sampling is seeded by the specification's seed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from cloister_workers.errors import SpecError, TrainerError
from cloister_workers.messages import DatasetRole, FailureCode, MetricName, Reported, RowReason, SpecField, Stage
from cloister_workers.trainer.bundle import write_bundle
from cloister_workers.trainer.generation import Sampler
from cloister_workers.trainer.layer import applied, labels_of
from cloister_workers.trainer.method import AuxiliaryModel
from cloister_workers.trainer.model import load_classifier, load_config, load_tokenizer, positions
from cloister_workers.trainer.padding import padded_examples
from cloister_workers.trainer.place import Inputs, Workplace, stage
from cloister_workers.trainer.prompts import REFUSALS, prompt_tokens, read_prompt
from cloister_workers.trainer.running import Job
from cloister_workers.trainer.session import Session
from cloister_workers.trainer.spec import Method, TrainingSpec, check, read_settings
from cloister_workers.trainer.stack.composer import Composed, Question
from cloister_workers.trainer.stack.encoder import load_encoder
from cloister_workers.trainer.stack.exam import Exam, answering
from cloister_workers.trainer.stack.index import Index
from cloister_workers.trainer.stack.layers import Stack, encoder_of, read_stack
from cloister_workers.trainer.stack.reading import read_input
from cloister_workers.trainer.stack.shots import Shot, labelled_prompt, questioned
from cloister_workers.trainer.steps import JobStep
from cloister_workers.trainer.steps.token_inference import Line, Pace, find_answers, tag_rows
from cloister_workers.trainer.texts import TextReader, Texts, texts_of

FILE = "predictions.jsonl"
_CITED = re.compile(r"\[(\d{1,3})\]")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """`method.inference` of the specification."""

    task: str = "generate"
    batch_size: int = 16
    max_seq_length: int = 1024
    max_new_tokens: int = 64
    temperature: float = 0.0

    def __post_init__(self) -> None:
        check(self.task in _TASKS, SpecField.TASK, f"one of {', '.join(_TASKS)}", self.task)
        check(self.batch_size >= 1, SpecField.BATCH_SIZE, "a whole number from 1", self.batch_size)
        check(0 <= self.temperature <= 10, SpecField.TEMPERATURE, "0 to 10", self.temperature)
        room = self.max_seq_length - (self.max_new_tokens if self.task == "generate" else 0)
        check(room >= 1, SpecField.MAX_SEQ_LENGTH, "more than max_new_tokens", self.max_seq_length)


def run(spec: TrainingSpec, inputs: Inputs, place: Workplace, session: Session) -> None:
    """Run an inference job to its Reported. Raises TrainerError or Cancelled."""
    settings, job = read_settings(Settings, spec.settings), Job(spec, inputs, place, session)
    if DatasetRole.EVALUATION not in inputs:
        raise SpecError(
            FailureCode.SPEC_INVALID,
            SpecField.EVALUATION_DATASET,
            "evaluation_dataset is missing; name the rows to answer",
        )
    whole = read_stack(inputs, place.scratch)
    lines = [{"row": number, **line} for number, line in _TASKS[settings.task](settings, whole, job)]
    with stage(session, Stage.EXPORT):
        text = "".join(json.dumps(line, ensure_ascii=False, sort_keys=True) + "\n" for line in lines)
        descriptor = write_bundle({FILE: text.encode()})
    session.hand_over(Reported(metrics={MetricName.EVAL_ROWS: float(len(lines))}, rows=len(lines)), descriptor)


# ---------------------------------------------------------------- generate
def _generate(settings: Settings, whole: Stack, job: Job) -> Iterator[tuple[int, Line]]:
    with stage(job.session, Stage.VALIDATE):
        exam = Exam(answering(settings.max_seq_length, settings.max_new_tokens), whole, encoder_of(whole, job), job)
        tokenizer = load_tokenizer(whole.tokenizer_dir(job.place.model_dir), chat=True)
        encodes = bool(load_config(whole.model_dir(job.place.model_dir)).is_encoder_decoder)
        reader = PromptReader(tokenizer, exam.longest - settings.max_new_tokens, chat=exam.chat, encodes=encodes)
        rows = read_input(DatasetRole.EVALUATION, job, reader.read)
    composer = whole.composer(tokenizer, exam.encoder)
    model = exam.model(whole, exam.objective(whole))
    sampler = Sampler(model, tokenizer, job.place.device, job.poll, job.spec.seed, settings.temperature)
    with stage(job.session, Stage.INFER):
        for some in job.counted(rows, settings.batch_size):
            made = composer.compose([Question(row.value.prompt, reader.room, query=row.value.asked) for row in some])
            answers = sampler.answers([composed.prompt for composed in made], settings.max_new_tokens)
            for row, composed, text in zip(some, made, answers, strict=True):
                yield row.number, _answer(text, composed, composer.index)


@dataclass(frozen=True)
class PromptReader:
    """Reads what a model is asked."""

    tokenizer: Any
    room: int
    """Tokens that a prompt may have."""
    chat: bool
    """Whether the model has a chat template of its own."""
    encodes: bool = False
    """Whether the model is an encoder-decoder."""

    def read(self, rows: Sequence[Mapping[str, object]]) -> list[Shot | RowReason]:
        """A question without an answer, or a reason, per row."""
        return [self._read(dict(row)) for row in rows]

    def _read(self, row: dict[str, object]) -> Shot | RowReason:
        shot = self._shot(row)
        if isinstance(shot, RowReason):
            return shot
        try:
            tokens = prompt_tokens(self.tokenizer, shot.prompt, whole=self.encodes)
            return shot if len(tokens) <= self.room else RowReason.TOO_LONG
        except REFUSALS:
            return RowReason.TEMPLATE_REFUSED

    def _shot(self, row: dict[str, object]) -> Shot | RowReason:
        key = next((name for name in ("messages", "prompt", "question", "text") if name in row), None)
        if key is None:
            return RowReason.MISSING_KEY
        prompt = read_prompt(row, key)
        if isinstance(prompt, RowReason):
            return prompt
        if isinstance(prompt, list):
            return Shot(prompt, [])
        if key == "question":
            return questioned(prompt, (), chat=self.chat)
        return (
            RowReason.WRONG_TYPE
            if key == "messages"
            else Shot(labelled_prompt(prompt) if key == "text" else prompt, "")
        )


def _answer(text: str, composed: Composed, index: Index | None) -> Line:
    cited = {int(number) for number in _CITED.findall(text)}
    chunks = [] if index is None else [(index.chunks[place], index) for place in composed.chunks]
    passages = [
        {
            "number": number,
            "document": found.documents[chunk.document],
            "start": chunk.start,
            "end": chunk.end,
            "cited": number in cited,
        }
        for number, (chunk, found) in enumerate(chunks, start=1)
    ]
    return {"answer": text, "passages": passages, "demonstrations": composed.shots, "dropped": composed.dropped}


# ---------------------------------------------------------------- classify
def _classify(settings: Settings, whole: Stack, job: Job) -> Iterator[tuple[int, Line]]:
    with stage(job.session, Stage.VALIDATE):
        folder = whole.model_dir(job.place.model_dir)
        labels = whole.weights.labels if whole.weights else labels_of(folder)
        if not labels:
            raise SpecError(
                FailureCode.SPEC_INVALID,
                SpecField.TASK,
                "task is classify, and the model has no classes; name a version that classification made",
            )
        tokenizer = load_tokenizer(whole.tokenizer_dir(job.place.model_dir), padded=True)
        rows = read_input(DatasetRole.EVALUATION, job, _texts)
        longest = min(settings.max_seq_length, positions(load_config(folder)) or settings.max_seq_length)
        reader, pad = TextReader(tokenizer, longest), int(tokenizer.pad_token_id)
        base = load_classifier(folder, labels, pad, job.place.device)
        if base.fresh and (whole.weights is None or whole.weights.adapter is None):
            raise TrainerError(FailureCode.MODEL_INVALID, "the model has no trained head; name a version that has one")
        model = applied(base, whole.weights)
        kind = str(load_config(str(whole.weights.folder) if whole.weights else folder).problem_type)
    with stage(job.session, Stage.INFER):
        for some in job.counted(rows, settings.batch_size):
            job.poll()
            batch = padded_examples(reader.encode([row.value for row in some]), pad, job.place.device)
            with torch.no_grad():
                logits = model(**batch).logits.float().cpu()
            for row, scores in zip(some, logits, strict=True):
                yield row.number, _classes(scores, labels, kind)


def _classes(logits: torch.Tensor, labels: Sequence[str], kind: str) -> Line:
    """What the logits [classes] of one row say, by the kind of classifier."""
    if kind == "regression":
        return {"value": float(logits[0])}
    several = kind == "multi_label_classification"
    chances = logits.sigmoid() if several else logits.softmax(-1)
    table = {label: round(chance, 6) for label, chance in zip(labels, chances.tolist(), strict=True)}
    if several:
        return {"labels": [label for label, chance in table.items() if chance >= 0.5], "probabilities": table}
    return {"label": labels[int(logits.argmax())], "probabilities": table}


# ---------------------------------------------------------------- embed
def _embed(settings: Settings, whole: Stack, job: Job) -> Iterator[tuple[int, Line]]:
    with stage(job.session, Stage.VALIDATE):
        rows = read_input(DatasetRole.EVALUATION, job, _texts)
        adapter = str(whole.weights.folder) if whole.weights and whole.weights.adapter is not None else ""
        found = AuxiliaryModel(whole.model_dir(job.place.model_dir), adapter)
        encoder = load_encoder(found, job.place.device, job.poll)
    with stage(job.session, Stage.INFER):
        for some in job.counted(rows, settings.batch_size):
            vectors = encoder.subject.embed([row.value[0] for row in some])
            for row, vector in zip(some, vectors.tolist(), strict=True):
                yield row.number, {"vector": [round(value, 6) for value in vector]}


def _texts(rows: Sequence[Mapping[str, object]]) -> list[Texts | RowReason]:
    return [texts_of(row) for row in rows]


# ---------------------------------------------------------------- tag, answer
def _tag(settings: Settings, whole: Stack, job: Job) -> Iterator[tuple[int, Line]]:
    return tag_rows(whole, job, Pace(settings.batch_size, settings.max_seq_length))


def _find(settings: Settings, whole: Stack, job: Job) -> Iterator[tuple[int, Line]]:
    return find_answers(whole, job, Pace(settings.batch_size, settings.max_seq_length), settings.max_new_tokens)


_TASKS = {"generate": _generate, "classify": _classify, "embed": _embed, "tag": _tag, "answer": _find}
STEP = JobStep(name=Method.INFERENCE, run=run)
