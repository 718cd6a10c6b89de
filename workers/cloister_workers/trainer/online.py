# SPDX-License-Identifier: Apache-2.0
"""Online reinforcement learning by TRL: GRPO (Shao et al. 2024, arXiv:2402.03300) and RLOO (Ahmadian et al. 2024,
arXiv:2402.14740).

TRL samples, makes advantages and losses and walks through the prompts; optimiser and schedule are those of the
training loop, so checkpoints are too. It is given models and prompts in memory, and writes nothing: no checkpoints, no
model card, no completions, no reports; telemetry is off by the environment that `__main__` sets. What is not set here
is as the pinned version of TRL has it: GRPO's loss is normalised over the step's tokens, rewards within their group.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from cloister_workers.messages import MetricName
from cloister_workers.trainer.optimiser import Optimiser
from cloister_workers.trainer.rewards import Exercise, Rewarding
from cloister_workers.trainer.schedule import learning_rate
from cloister_workers.trainer.spec import Hyperparameters

GRPO, RLOO = "grpo", "rloo"


@dataclass(frozen=True)
class Sampling:
    """How answers are made and compared."""

    algorithm: str
    generations: int
    max_new_tokens: int
    beta: float
    temperature: float


@dataclass(frozen=True)
class Span:
    """Steps `done` to `last` of a job."""

    done: int
    last: int
    seed: int


@dataclass(frozen=True)
class Learner:
    """Who learns, and how it moves."""

    model: torch.nn.Module
    tokenizer: Any
    optimiser: Optimiser


@dataclass(frozen=True)
class Watch:
    """Whom to ask and tell. Both may raise to stop."""

    poll: Callable[[], object]
    """Before every forward and after every generation."""
    stepped: Callable[[int, int, dict[MetricName, float]], object]
    """After a step: its number, how many tokens were seen since the start, and loss, reward, norm and rate."""


def train_online(
    learner: Learner,
    exercises: Sequence[Exercise],
    reward: Rewarding,
    wanted: Hyperparameters,
    sampling: Sampling,
    span: Span,
    watch: Watch,
    scratch: str,
) -> None:
    """Take the steps of `span`. Batches count answers: each step has batch_size / generations prompts."""
    import datasets
    import transformers
    import trl

    rows = datasets.Dataset.from_list(
        [{"prompt": entry.text, "exercise": place} for place, entry in enumerate(exercises)]
    )

    def rewards(completions: list[str], exercise: list[int], **_: object) -> list[float]:
        watch.poll()
        return reward([exercises[place] for place in exercise], completions)

    kinds = {
        GRPO: (trl.GRPOTrainer, trl.GRPOConfig),
        RLOO: (trl.RLOOTrainer, trl.RLOOConfig),
    }
    trainer_of, config_of = kinds[sampling.algorithm]
    model: Any = learner.model
    adamw = learner.optimiser.adamw
    trainer = trainer_of(
        model=model,
        reward_funcs=rewards,
        args=config_of(**_settings(model, wanted, sampling, span, scratch)),
        train_dataset=rows,
        processing_class=learner.tokenizer,
        optimizers=(adamw, _schedule(adamw, wanted, span)),
        callbacks=[_callback(span, watch)],
    )
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.train()
    if hasattr(model, "peft_config") and "ref" in model.peft_config:
        model.delete_adapter("ref")


def _settings(
    model: torch.nn.Module, wanted: Hyperparameters, sampling: Sampling, span: Span, scratch: str
) -> dict[str, object]:
    on_gpu = next(model.parameters()).device.type == "cuda"
    at_once = largest_part(wanted.batch_size, wanted.micro_batch_size)
    return {
        "output_dir": scratch,
        "save_strategy": "no",
        "report_to": "none",
        "push_to_hub": False,
        "disable_tqdm": True,
        "log_level": "error",
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "use_cpu": not on_gpu,
        "bf16": on_gpu,
        "activation_checkpointing": on_gpu,
        "dataloader_pin_memory": False,
        "seed": span.seed,
        "data_seed": span.seed,
        "max_steps": span.last - span.done,
        "per_device_train_batch_size": at_once,
        "gradient_accumulation_steps": wanted.batch_size // at_once,
        "max_grad_norm": wanted.max_grad_norm,
        "num_generations": sampling.generations,
        "max_completion_length": sampling.max_new_tokens,
        "temperature": sampling.temperature,
        "beta": sampling.beta,
    }


def largest_part(batch_size: int, limit: int) -> int:
    """The largest divisor of `batch_size` that is at most `limit`."""
    return next(size for size in range(min(batch_size, limit), 0, -1) if batch_size % size == 0)


def _schedule(adamw: torch.optim.Optimizer, wanted: Hyperparameters, span: Span) -> torch.optim.lr_scheduler.LambdaLR:
    adamw.param_groups[0]["lr"] = adamw.param_groups[0]["initial_lr"] = 1.0

    def rate(step: int) -> float:
        kind, peak = wanted.lr_scheduler_type, wanted.learning_rate
        return learning_rate(kind, peak, span.done + step, span.last, wanted.warmup_ratio)

    return torch.optim.lr_scheduler.LambdaLR(adamw, rate)


def _callback(span: Span, watch: Watch) -> Any:  # noqa: ANN401 - a class of transformers, which is imported late
    import transformers

    class Telling(transformers.TrainerCallback):  # type: ignore[misc]
        """TRL's only way to say how it goes."""

        def on_step_begin(self, args: Any, state: Any, control: Any, **_: object) -> None:  # noqa: ANN401
            watch.poll()

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: object) -> None:  # noqa: ANN401
            if not logs or "loss" not in logs:
                return
            named = {
                MetricName.LOSS: "loss",
                MetricName.REWARD: "reward",
                MetricName.GRAD_NORM: "grad_norm",
                MetricName.LEARNING_RATE: "learning_rate",
            }
            figures = {name: float(logs[key]) for name, key in named.items() if key in logs}
            watch.stepped(span.done + state.global_step, int(state.num_input_tokens_seen), figures)

    return Telling()
