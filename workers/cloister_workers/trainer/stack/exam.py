# SPDX-License-Identifier: Apache-2.0
"""The same rows asked of a base model with any of a version's layers in force.

What the rows ask for is a training method: its objective reads and scores them. Where the answers are texts, the layers
that make prompts put their part before each question (`composer.py`); the loss then is that of the right answer after
the whole prompt. All are asked by the version's tokenizer, as an adapter learnt with it; a base under whole weights of
its own keeps the one that it came with. A method that compares with a reference takes the base model for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch

from cloister_workers.errors import TrainerError
from cloister_workers.messages import FailureCode, FailureNumber, MetricName, Metrics, RowReason
from cloister_workers.trainer.answers import answer_metrics
from cloister_workers.trainer.catalogue import training_method
from cloister_workers.trainer.evaluate import examined, metrics_of, scored
from cloister_workers.trainer.example import Example
from cloister_workers.trainer.generation import Sampler
from cloister_workers.trainer.layer import labels_of
from cloister_workers.trainer.method import Settling, TrainingMethod, unchanged
from cloister_workers.trainer.metrics import ratio_interval, with_ends
from cloister_workers.trainer.model import load_config, load_tokenizer, positions
from cloister_workers.trainer.objectives import Objective
from cloister_workers.trainer.objectives.classification import PROBLEM_TYPES
from cloister_workers.trainer.place import auxiliary_model
from cloister_workers.trainer.preparation import make_setup
from cloister_workers.trainer.prompts import prompt_tokens
from cloister_workers.trainer.running import Job
from cloister_workers.trainer.spec import Hyperparameters, Method
from cloister_workers.trainer.stack.composer import Composer, Question
from cloister_workers.trainer.stack.encoder import Encoder
from cloister_workers.trainer.stack.layers import Stack
from cloister_workers.trainer.stack.shots import Shot, asked_as, read_shot
from cloister_workers.trainer.text_metrics import ANSWER

_WRITERS = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
_BATCH = 16  # questions of one evaluation batch
_CLOSE = 1e-6
_END = 2  # tokens that may stand around an answer: the end of the text, and one that a join splits


@dataclass(frozen=True)
class Task:
    """What is asked, and how."""

    method: TrainingMethod[Any]
    hyperparameters: Hyperparameters
    """Of these, batch_size, micro_batch_size and max_seq_length are used."""
    settings: Mapping[str, object]
    """The method's own."""
    max_new_tokens: int
    answers: bool
    """Whether rows are questions with answers in words, before which prompts are put."""
    context: bool = False
    """Whether each question comes with a context, to which passages and demonstrations are added."""


@dataclass(frozen=True)
class Exam:
    """One task, one version, and where they meet."""

    task: Task
    whole: Stack
    """The version with all of its layers."""
    encoder: Encoder | None
    job: Job
    _settled: dict[str, Objective] = field(default_factory=dict)
    _tokenizers: dict[str, Any] = field(default_factory=dict)
    """By folder: making one takes longer than asking a question."""
    _loaded: dict[bool, torch.nn.Module] = field(default_factory=dict)
    """The last model, by whether the version's weights are in force in it."""

    @property
    def longest(self) -> int:
        """Tokens of a prompt and its answer at most: what the task wants, and what the model has positions for."""
        wanted = self.task.hyperparameters.max_seq_length
        return min(wanted, positions(load_config(self._model_dir())) or wanted)

    @property
    def chat(self) -> bool:
        """Whether the model has a chat template of its own."""
        return load_tokenizer(self._tokenizer_dir(self.whole)).chat_template is not None

    def objective(self, stack: Stack) -> Objective:
        """What reads and scores the rows, for these layers. Raises SpecError for settings that do not fit."""
        setup = replace(
            make_setup(self.job.spec, self._tokenizer(stack), self.job.place, self.whole.weights),
            hyperparameters=self.task.hyperparameters,
            settings={**self.task.settings, **self._kind()},
            labels=self.whole.weights.labels if self.whole.weights else labels_of(self._model_dir()),
        )
        made: Objective = self.task.method.objective(setup)
        return made

    def reader(self) -> Callable[[Sequence[dict[str, object]]], list[Shot | RowReason]]:
        """What reads rows as questions and answers, and refuses those that the objective refuses."""
        objective, chat = self.objective(self.whole), self.chat

        def read(row: dict[str, object]) -> Shot | RowReason:
            shot = read_shot(row, chat=chat)
            if isinstance(shot, RowReason):
                return shot
            (made,) = objective.read([shot.row()])
            return made if isinstance(made, RowReason) else shot

        return lambda rows: [read(row) for row in rows]

    def model(self, stack: Stack, objective: Objective) -> torch.nn.Module:
        """The model with the stack's weights in force. Raises TrainerError where they do not go onto it."""
        weighted = stack.weights is not None
        if weighted not in self._loaded:
            self._loaded.clear()  # two at once may not fit
            self._loaded[weighted] = stack.model(self.task.method, objective, self.job.place, self.job.spec.seed)
        return self._loaded[weighted]

    def measure(
        self,
        stack: Stack,
        rows: Sequence[dict[str, object]],
        shots: Sequence[Shot],
        *,
        losses_only: bool = False,
    ) -> Metrics:
        """Metrics with these layers in force; `shots` are the rows as questions and answers, where they are that.

        Raises Cancelled, as `model`, and TrainerError ROWS_INVALID where a row is too long behind the layers' part.
        """
        objective = self.objective(stack)
        if self.task.context:
            rows = self._with_more_context(stack, objective, rows) if stack.prompts else rows
        elif self.task.answers:
            shots = self.composed(stack, shots)
            rows = [shot.row() for shot in shots]
        examples = flattened(objective.read(rows))
        model = self.model(stack, objective)
        objective = self._settle(stack, model, objective, examples)
        size = self.task.hyperparameters.batch_size
        found = scored(model, objective, examples, size, self.job.poll)
        metrics = with_interval(objective, metrics_of(objective, found), found.examples, found.sums)
        if losses_only:
            return metrics
        if self.task.settings.get("metrics") == ANSWER and not load_config(self._model_dir()).is_encoder_decoder:
            return {**metrics, **self._answered(stack, model, shots)}
        return {**metrics, **examined(model, objective, examples, self.job.poll)}

    def _answered(self, stack: Stack, model: torch.nn.Module, shots: Sequence[Shot]) -> Metrics:
        """How many of the generated answers are right."""
        if not shots:
            return {}
        size, job = self.task.hyperparameters.batch_size, self.job
        sampler = Sampler(model, self._tokenizer(stack), job.place.device, job.poll, job.spec.seed)
        answers: list[str] = []
        for start in range(0, len(shots), size):
            asked = [shot.prompt for shot in shots[start : start + size]]
            answers += sampler.answers(asked, self.task.max_new_tokens)
        return answer_metrics(answers, [shot.references for shot in shots])

    def composed(self, stack: Stack, shots: Sequence[Shot]) -> list[Shot]:
        """Questions with the stack's demonstrations and passages before them, and room left for the answer."""
        composer = stack.composer(self._tokenizer(stack), self.encoder)
        limit = self.longest
        questions = [
            Question(shot.prompt, limit - self._answer_room(composer, shot), frozenset({shot.group}), shot.asked)
            for shot in shots
        ]
        return [
            replace(shot, prompt=made.prompt, completion=_like(made.prompt, shot))
            for shot, made in zip(shots, composer.compose(questions), strict=True)
        ]

    def _with_more_context(
        self, stack: Stack, objective: Objective, rows: Sequence[dict[str, object]]
    ) -> list[dict[str, object]]:
        """Rows of `question` and `context`, what the stack puts before the question written before the context."""
        examples = flattened(objective.read(rows))
        composer = stack.composer(self._tokenizer(stack), self.encoder)
        limit = self.longest - self.task.max_new_tokens
        questions = [
            Question("", limit - len(example.tokens), asked_as(str(row["question"])), str(row["question"]))
            for row, example in zip(rows, examples, strict=True)
        ]
        made = [entry.prompt for entry in composer.compose(questions)]
        return [
            {**row, "context": f"{before}{row['context']}"} if isinstance(before, str) else row
            for row, before in zip(rows, made, strict=True)
        ]

    def _answer_room(self, composer: Composer, shot: Shot) -> int:
        """Tokens to leave for an answer: the right one, or the longest that may be generated."""
        if isinstance(shot.prompt, str) or isinstance(shot.completion, str):
            own = len(composer.tokenizer(str(shot.completion), add_special_tokens=False)["input_ids"]) + _END
        else:
            whole = prompt_tokens(composer.tokenizer, [*shot.prompt, *shot.completion])
            own = len(whole) - len(prompt_tokens(composer.tokenizer, shot.prompt)) + _END
        return max(own, self.task.max_new_tokens)

    def _settle(
        self, stack: Stack, model: torch.nn.Module, objective: Objective, examples: Sequence[Example]
    ) -> Objective:
        """The objective once it has seen the base model, for each tokenizer; answers in words need no reference."""
        folder = self._tokenizer_dir(stack)
        if self.task.answers or self.task.method.settled is unchanged:
            return objective
        if folder not in self._settled:
            base = model if stack.weights is None else Stack().model(self.task.method, objective, self.job.place, 0)
            place = self.job.place
            second = partial(auxiliary_model, self.job.inputs, place)
            settling = Settling(base, tuple(examples), second, self.job.poll, place.device)
            self._settled[folder] = self.task.method.settled(objective, settling)
        return self._settled[folder]

    def _kind(self) -> dict[str, str]:
        """What kind of classes a classifier has, where that is not one for each text."""
        weights = self.whole.weights
        config = load_config(str(weights.folder) if weights else self._model_dir())
        kind = PROBLEM_TYPES.get(str(getattr(config, "problem_type", None)))
        return {"problem_type": kind} if kind and self.task.method.name is Method.CLASSIFICATION else {}

    def _model_dir(self) -> str:
        return self.whole.model_dir(self.job.place.model_dir)

    def _tokenizer(self, stack: Stack) -> Any:  # noqa: ANN401 - transformers' own type is dynamic
        folder = self._tokenizer_dir(stack)
        if folder not in self._tokenizers:
            self._tokenizers[folder] = self.task.method.tokenizer(folder)
        return self._tokenizers[folder]

    def _tokenizer_dir(self, stack: Stack) -> str:
        own = self.whole.weights is None or self.whole.weights.adapter is not None or stack.weights is not None
        return (self.whole if own else stack).tokenizer_dir(self.job.place.model_dir)


def flattened(read: Sequence[object]) -> list[Example]:
    """The examples that an objective read, those of a row that it cut into several one after the other.

    Raises TrainerError ROWS_INVALID where it refused one: figures of fewer rows than asked could not be compared.
    """
    refused = [entry for entry in read if isinstance(entry, RowReason)]
    if refused:
        raise TrainerError(
            FailureCode.ROWS_INVALID,
            f"{len(refused)} of {len(read)} rows do not fit ({refused[0]}) with the version's demonstrations and "
            "passages before them; give a larger max_seq_length, or fewer demonstrations or passages",
            {FailureNumber.TOTAL_ERRORS: len(refused)},
        )
    found = [entry if isinstance(entry, tuple) else (entry,) for entry in read]
    return [example for entry in found for example in entry if isinstance(example, Example)]


def with_interval(
    objective: Objective, metrics: Metrics, examples: Sequence[Example], sums: Sequence[float]
) -> dict[MetricName, float]:
    """The metrics with the interval of their loss, where that is the mean over the weights of all examples and the
    objective gives none itself.
    """
    loss = metrics.get(MetricName.EVAL_LOSS)
    weights = [objective.weight(example) for example in examples]
    known = MetricName.EVAL_LOSS_CI_LOW in metrics
    if known or loss is None or not weights or abs(sum(sums) / sum(weights) - loss) > _CLOSE * max(1.0, abs(loss)):
        return dict(metrics)
    interval = ratio_interval(sums, weights, [example.group for example in examples])
    if interval is None:
        return dict(metrics)
    return {**metrics, **with_ends(MetricName.EVAL_LOSS, loss, interval)}


def _like(prompt: object, shot: Shot) -> Any:  # noqa: ANN401 - a text or messages, as the prompt
    """The answer in the form of the whole prompt: a text that became a chat is answered by a turn."""
    if isinstance(prompt, list) and isinstance(shot.completion, str):
        return [{"role": "assistant", "content": shot.completion.strip()}]
    return shot.completion


def writes(config: Any) -> bool:  # noqa: ANN401 - transformers' own type is dynamic
    """Whether the model with this configuration writes texts, by the names of its architectures."""
    return any(str(name).endswith(_WRITERS) for name in config.architectures or ())


def answering(max_seq_length: int, max_new_tokens: int) -> Task:
    """Questions with answers in words: the loss of the right ones, exact match and F1 of generated ones."""
    return Task(
        training_method(Method.SUPERVISED),
        Hyperparameters(batch_size=_BATCH, micro_batch_size=1, max_seq_length=max_seq_length),
        {"metrics": ANSWER, "max_new_tokens": max_new_tokens},
        max_new_tokens,
        answers=True,
    )
