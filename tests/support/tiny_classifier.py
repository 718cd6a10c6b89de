# SPDX-License-Identifier: Apache-2.0
"""A tiny adapted classifier, material with groups for it, and the training loop without an agent around it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cloister_workers.messages import Metrics, Progress
from cloister_workers.trainer.checkpoint import LoopState
from cloister_workers.trainer.debias.kinds import FloatArray, ModelKind
from cloister_workers.trainer.debias.lexicon.terms import Lexicon
from cloister_workers.trainer.debias.material import Material, Part, RowType
from cloister_workers.trainer.debias.mitigation import Case
from cloister_workers.trainer.debias.shapes import Labelled
from cloister_workers.trainer.debias.subjects import Subject
from cloister_workers.trainer.debias.subjects.classifier import ClassifierSubject
from cloister_workers.trainer.debias.training import Trained
from cloister_workers.trainer.loop import Parts, Trainee, train
from cloister_workers.trainer.objectives import Objective
from cloister_workers.trainer.optimiser import Optimiser
from cloister_workers.trainer.spec import Hyperparameters, Lora, Method, TrainingSpec
from tiny_models import WORDS

CPU = torch.device("cpu")
LABELS = ("no", "yes")


@dataclass(frozen=True)
class Scripted:
    """A classifier that gives each text the logits that the test wrote for it."""

    table: Mapping[str, Sequence[float]]
    labels: tuple[str, ...] = LABELS
    model: Any = None
    tokenizer: Any = None
    device: torch.device = CPU

    def logits(self, texts: Sequence[str]) -> FloatArray:
        return np.array([self.table[text] for text in texts], dtype=np.float64).reshape(len(texts), len(self.labels))


def adapted_subject(
    model_dir: Path, labels: tuple[str, ...] = LABELS, poll: Callable[[], object] = lambda: None, batch_size: int = 4
) -> ClassifierSubject:
    """A seeded classifier on the tiny encoder, with an adapter on its attention."""
    from cloister_workers.trainer.adapt import attach_lora
    from cloister_workers.trainer.model import load_classifier, load_tokenizer

    tokenizer = load_tokenizer(str(model_dir), padded=True)
    torch.manual_seed(3)
    base = load_classifier(str(model_dir), labels, int(tokenizer.pad_token_id), CPU)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft to transformers, about a name
        model = attach_lora(base, Lora(target_modules=("query", "value"), dropout=0.1))
    return ClassifierSubject(model, tokenizer, CPU, poll, 32, batch_size, labels)


@dataclass
class LoopOnly:
    """`Training` as a job has it, without messages, checkpoints and stops."""

    losses: list[float] = field(default_factory=list)
    parts: Parts | None = None

    def __call__(
        self,
        model: torch.nn.Module,
        objective: Objective,
        parts: Parts,
        hyperparameters: Hyperparameters,
        seed: int,
        enough: Callable[[Metrics], bool] = lambda _: False,
    ) -> Trained:
        self.parts = parts
        spec = TrainingSpec(model="", method=Method.CLASSIFICATION, seed=seed, hyperparameters=hyperparameters)
        torch.manual_seed(seed)
        optimiser = Optimiser(model, hyperparameters.weight_decay, hyperparameters.max_grad_norm)
        ticks = iter(range(1_000_000))
        trainee = Trainee(model, objective, optimiser)
        state = train(spec, trainee, parts, self, lambda: float(next(ticks)), LoopState(), enough)
        return Trained(state.step, state.trained_tokens, state.loss)

    def poll(self, step: int = 0) -> None:
        """Never stops."""

    def pause_wanted(self) -> bool:
        return False

    def progress(self, message: Progress) -> None:
        self.losses += message.losses

    def evaluated(self, *_: object) -> None:
        """Nobody listens."""

    checkpoint = evaluated


def skewed_rows(count: int, skew: float = 0.8) -> tuple[Labelled, ...]:
    """Rows of two groups and two labels, in which group and label go together in `skew` of the rows. The first word
    tells the label, the second the group.
    """
    rows = []
    for number in range(count):
        group, with_it = ("female", "male")[number % 2], (number // 2 % 10) < 10 * skew
        label = LABELS[(group == "male") == with_it]
        words = [WORDS[label == "yes"], WORDS[2 + (group == "male")], WORDS[4 + number % 6], WORDS[4 + number // 6 % 6]]
        rows.append(Labelled(" ".join(words), label, {"gender": group}, person=f"p{number}"))
    return tuple(rows)


def part_of(*rows: RowType, lexicons: Mapping[str, Lexicon] | None = None) -> Part:
    """A part of these rows."""
    return Part(Material.from_rows(rows), lexicons or {})


def case_of(
    subject: Subject | None,
    scratch: Path,
    fit: Sequence[Labelled],
    validation: Sequence[Labelled] = (),
    training: LoopOnly | None = None,
    **changes: object,
) -> Case:
    """A mitigation's case on the gender axis."""
    given: dict[str, Any] = {
        "subject": subject,
        "kind": ModelKind.CLASSIFIER,
        "axes": ("gender",),
        "fit": part_of(*fit),
        "validation": part_of(*validation),
        "settings": {},
        "options": {},
        "hyperparameters": Hyperparameters(
            n_epochs=2, batch_size=8, micro_batch_size=8, learning_rate=0.01, max_seq_length=32
        ),
        "lora": Lora(),
        "seed": 5,
        "model_name": "tiny",
        "scratch": str(scratch),
        "training": training or LoopOnly(),
    }
    return Case(**{**given, **changes})
