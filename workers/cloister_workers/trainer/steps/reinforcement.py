# SPDX-License-Identifier: Apache-2.0
"""Reinforcement: the model answers prompts and learns from what its answers are worth.

The stages are those of a training job (`stages.py`); `online.py` takes the place of the loop. Batches count answers: a
step has batch_size / generations prompts, and an epoch as many steps as its prompts fill. Before and after, the
likeliest answer to each held-out prompt is rewarded once; with a check, the interval of the mean is Wilson's, else
Student's.

A pause ends the job after the step that it falls into, with a checkpoint of weights, moments and step; going on from
it samples anew, so unlike in the loop the curve is not that of a job that never stopped.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import torch
from peft.tuners.tuners_utils import BaseTunerLayer

from cloister_workers.errors import Paused, SpecError, TrainerError
from cloister_workers.messages import (
    EvaluationPhase,
    FailureCode,
    FailureNumber,
    MetricName,
    Metrics,
    SpecField,
    Stage,
)
from cloister_workers.trainer import metrics
from cloister_workers.trainer.checkpoint import LoopState
from cloister_workers.trainer.example import Example
from cloister_workers.trainer.export import export_files
from cloister_workers.trainer.generation import Sampler
from cloister_workers.trainer.layer import Layer, attach, model_dir, tokenizer_dir, weights_layer
from cloister_workers.trainer.loop import Parts, Plan
from cloister_workers.trainer.method import Setup, TrainingMethod, load_packed
from cloister_workers.trainer.objectives.pairs import refuse_truncation
from cloister_workers.trainer.online import GRPO, RLOO, Learner, Sampling, Span, Watch, train_online
from cloister_workers.trainer.order import milestones
from cloister_workers.trainer.place import Inputs, Workplace, auxiliary_model, stage
from cloister_workers.trainer.preparation import make_setup, prepare
from cloister_workers.trainer.rewards import CHECKS, MODEL, Rewarding, by_checks
from cloister_workers.trainer.rewards.exercises import ExerciseReader
from cloister_workers.trainer.running import Job
from cloister_workers.trainer.session import Session
from cloister_workers.trainer.spec import Lora, Method, TrainingSpec, check, read_settings
from cloister_workers.trainer.stages import Begun, begin, run_stages
from cloister_workers.trainer.steps import JobStep
from cloister_workers.trainer.telling import Teller


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The method's own."""

    algorithm: str = GRPO
    reward: str = "exact_answer"
    generations: int = 8
    max_new_tokens: int = 64
    beta: float = 0.0
    temperature: float = 1.0

    def __post_init__(self) -> None:
        name, kinds = SpecField, (*CHECKS, MODEL)
        check(self.algorithm in (GRPO, RLOO), name.ALGORITHM, f"{GRPO} or {RLOO}", self.algorithm)
        check(self.reward in kinds, name.REWARD, f"one of {', '.join(kinds)}", self.reward)
        check(2 <= self.generations <= 256, name.GENERATIONS, "2 to 256", self.generations)
        check(1 <= self.max_new_tokens <= 8192, name.MAX_NEW_TOKENS, "1 to 8192", self.max_new_tokens)
        check(0 <= self.beta <= 100, name.BETA, "0 to 100", self.beta)
        check(0.01 <= self.temperature <= 10, name.TEMPERATURE, "0.01 to 10", self.temperature)

    @property
    def sampling(self) -> Sampling:
        """What TRL needs of them."""
        return Sampling(self.algorithm, self.generations, self.max_new_tokens, self.beta, self.temperature)


def run(spec: TrainingSpec, inputs: Inputs, place: Workplace, session: Session) -> None:
    """Run one job to its Result. Raises TrainerError, Cancelled or Paused; what it told before stands."""
    settings, job = _checked_settings(spec), Job(spec, inputs, place, session)
    layer = weights_layer(inputs, place.scratch)
    tokenizer = _METHOD.tokenizer(tokenizer_dir(layer, place.model_dir))
    with stage(session, Stage.VALIDATE):
        made, parts = prepare(spec, _METHOD, make_setup(spec, tokenizer, place, layer), inputs, session)
        reader = cast("ExerciseReader", made)
        plan = _plan(spec, settings, len(parts.training))
    model = _model(spec, place, layer)
    reward = _reward(settings, job)
    run_stages(begin(job, layer, parts, model), OnlineCourse(job, settings, reader, parts, reward, plan))


@dataclass(frozen=True)
class OnlineCourse:
    """Training on the model's own answers."""

    job: Job
    settings: Settings
    reader: ExerciseReader
    parts: Parts
    reward: Rewarding
    plan: Plan

    def measure(self, model: torch.nn.Module, step: int) -> dict[MetricName, float]:
        """What the likeliest answers to the evaluation part's prompts are worth. Raises Cancelled."""
        return self.rewarded(model, self.parts.evaluation, step)

    def train(self, begun: Begun) -> LoopState:
        """To the end of the plan. Raises Cancelled, Paused, TrainerError NON_FINITE_LOSS."""
        return _Steps(self, begun).train()

    def files(self, model: torch.nn.Module, name: str) -> Mapping[str, bytes]:
        """The adapter or the weights, as in every job."""
        return export_files(model, self.reader.tokenizer, name, self.job.place.scratch)

    def rewarded(self, model: torch.nn.Module, examples: tuple[Example, ...], step: int) -> dict[MetricName, float]:
        """What the likeliest answers to these prompts are worth; nothing for no prompts. Raises Cancelled."""
        if not examples:
            return {}
        exercises = [self.reader.exercises[example.digest] for example in examples]
        tokenizer, poll = self.reader.tokenizer, partial(self.job.session.poll, step)
        sampler = Sampler(model, tokenizer, next(model.parameters()).device, poll)
        said = sampler.tokens([example.tokens for example in examples], self.settings.max_new_tokens)
        answers = tokenizer.batch_decode(said, skip_special_tokens=True)  # white space counts, as in training
        return dict(reward_metrics(self.reward(exercises, answers), checked=self.settings.reward != MODEL))


def reward_metrics(rewards: list[float], *, checked: bool) -> Metrics:
    """The mean with its interval; `checked` rewards are 0 or 1."""
    total, rows = math.fsum(rewards), len(rewards)
    interval = metrics.wilson_interval(total, rows) if checked else metrics.mean_interval(rewards)
    return {**metrics.with_ends(MetricName.EVAL_REWARD, total / rows, interval), MetricName.EVAL_ROWS: float(rows)}


class _Steps:
    """Follows TRL's steps: progress, evaluations, checkpoints, pause and cancellation."""

    def __init__(self, course: OnlineCourse, begun: Begun) -> None:
        self._course, self._model, self._hooks, self._plan = course, begun.model, begun.hooks, course.plan
        self._start, self._state = begun.state, begun.state
        clock, plan = course.job.place.clock, course.plan
        self._teller = Teller(self._hooks.progress, plan.max_steps, plan.per_epoch, clock, begun.state)

    def train(self) -> LoopState:
        """As `OnlineCourse.train`."""
        course, spec = self._course, self._course.job.spec
        if self._state.step < self._plan.max_steps:
            train_online(
                Learner(self._model, course.reader.tokenizer, self._hooks.optimiser),
                [course.reader.exercises[example.digest] for example in course.parts.training],
                course.reward,
                spec.hyperparameters,
                course.settings.sampling,
                Span(self._state.step, self._plan.max_steps, (spec.seed + self._state.step) % 2**32),
                Watch(lambda: self._hooks.poll(self._state.step), self._stepped),
                course.job.place.scratch,
            )
        return self._state

    def _stepped(self, step: int, tokens: int, figures: dict[MetricName, float]) -> None:
        loss = figures.pop(MetricName.LOSS)
        if not (math.isfinite(loss) and all(map(math.isfinite, figures.values()))):
            raise TrainerError(
                FailureCode.NON_FINITE_LOSS,
                f"loss, reward or gradient of step {step} is not finite; lower learning_rate",
                {FailureNumber.STEP: step},
            )
        seen = self._start.trained_tokens + tokens
        self._state = replace(self._state, step=step, trained_tokens=seen, loss=loss)
        self._teller.step(self._state, figures)
        told: dict[MetricName, float] = {MetricName.LOSS: loss}
        if step in self._plan.evaluations and self._course.parts.validation:
            measured = self._course.rewarded(self._model, self._course.parts.validation, step)
            self._hooks.evaluated(EvaluationPhase.DURING, step, measured)
            told |= measured
        pause = self._hooks.pause_wanted() and step < self._plan.max_steps
        if pause or step in self._plan.checkpoints:
            self._hooks.checkpoint(self._state, told)
        if pause:
            self._teller.pause(self._state)
            raise Paused(step)


def _checked_settings(spec: TrainingSpec) -> Settings:
    settings, wanted = read_settings(Settings, spec.settings), spec.hyperparameters
    batch, generations = wanted.batch_size, settings.generations
    check(batch % generations == 0, SpecField.BATCH_SIZE, f"a multiple of generations, {generations}", batch)
    check(
        wanted.micro_batch_size >= 1, SpecField.MICRO_BATCH_SIZE, "1 or more; TRL finds none", wanted.micro_batch_size
    )
    check(not wanted.keep_best, SpecField.KEEP_BEST, "false: the weights are those of the last step", wanted.keep_best)
    patience = wanted.early_stop_patience
    check(not patience, SpecField.EARLY_STOP_PATIENCE, "0: all steps are taken", patience)
    length, new = wanted.max_seq_length, settings.max_new_tokens
    check(length > new, SpecField.MAX_SEQ_LENGTH, f"more than max_new_tokens, {new}", length)
    if settings.beta and not isinstance(spec.adapter, Lora):
        raise SpecError(
            FailureCode.SPEC_INVALID,
            SpecField.ADAPTER,
            f"beta is {settings.beta}, which compares with the model without its adapter; give lora, or leave beta out",
        )
    return settings


def _plan(spec: TrainingSpec, settings: Settings, prompts: int) -> Plan:
    """Steps of full batches alone. Raises TrainerError TOO_FEW_ROWS where the prompts do not fill one."""
    wanted = spec.hyperparameters
    per_epoch = prompts * settings.generations // wanted.batch_size
    if per_epoch == 0:
        raise TrainerError(
            FailureCode.TOO_FEW_ROWS,
            f"a step needs {wanted.batch_size // settings.generations} prompts, {prompts} are left after the split; "
            "give more rows or a smaller batch_size",
            {FailureNumber.ROWS: prompts},
        )
    total = wanted.max_steps or wanted.n_epochs * per_epoch
    return Plan(total, per_epoch, milestones(total, wanted.n_evals), milestones(total, wanted.n_checkpoints))


def _model(spec: TrainingSpec, place: Workplace, layer: Layer | None) -> torch.nn.Module:
    torch.manual_seed(spec.seed)
    # The check of packing is also what tells a model that sees what comes after a token.
    base = load_packed(model_dir(layer, place.model_dir), None, place.device)
    model: Any = attach(base, layer, spec.adapter)
    if isinstance(model.get_output_embeddings(), BaseTunerLayer):
        raise SpecError(
            FailureCode.ADAPTER_INVALID,
            SpecField.TARGET_MODULES,
            "target_modules name the output layer, on which TRL trains no adapter; leave it out",
        )
    # Answers are written token by token and padded, which packed attention does not know.
    base.model.set_attn_implementation("sdpa")  # type: ignore[operator]
    for parameter in model.parameters():
        if parameter.requires_grad:  # small steps would be lost in bfloat16
            parameter.data = parameter.data.float()
    trained: torch.nn.Module = model
    return trained


def _reward(settings: Settings, job: Job) -> Rewarding:
    if settings.reward != MODEL:
        return by_checks
    from cloister_workers.trainer.rewards.scorer import load_scorer

    return load_scorer(auxiliary_model(job.inputs, job.place), job.place.device, job.poll)


def _reader(setup: Setup) -> ExerciseReader:
    refuse_truncation(setup)
    settings = read_settings(Settings, setup.settings)
    room = setup.hyperparameters.max_seq_length - settings.max_new_tokens
    return ExerciseReader(setup.tokenizer, room, CHECKS.get(settings.reward))


_METHOD = TrainingMethod[Any](name=Method.REINFORCEMENT, objective=_reader, padded=True, chat=True)
STEP = JobStep(name=Method.REINFORCEMENT, run=run)
