# SPDX-License-Identifier: Apache-2.0
"""What a training method is: which model it wants, how its rows become examples, and which losses it gives.

A method is one file of `objectives/`: its objective, a frozen dataclass of its own settings, and at the end
`METHOD = TrainingMethod(...)`, by which `catalogue.py` finds it. The loop (`loop.py`) and the stages of a job
(`job.py`) are the same for all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, BinaryIO, Generic, TypeVar

import torch

from cloister_workers.messages import DatasetRole
from cloister_workers.trainer.example import Example
from cloister_workers.trainer.export import export_files
from cloister_workers.trainer.model import Base, load_causal, load_tokenizer, longest_sequence, positions
from cloister_workers.trainer.objectives import Objective
from cloister_workers.trainer.probe import settle_packing
from cloister_workers.trainer.spec import Adapter, Hyperparameters, Lora, Method, TrainingSpec

T = TypeVar("T", bound=Objective)
Streams = Mapping[DatasetRole, BinaryIO]


@dataclass(frozen=True)
class Setup:
    """What an objective is made from, before a row is read."""

    tokenizer: Any
    """The model's, as `TrainingMethod.padded` and `chat` ask for it."""
    config: Any
    """The model's transformers configuration."""
    hyperparameters: Hyperparameters
    """As the specification says them, max_seq_length bounded by what the model has positions for."""
    settings: Mapping[str, object]
    """The method's own of the specification; `read_settings` gives them their types."""
    device: torch.device
    seed: int
    too_long: str = ""
    """What the specification says of rows of more than max_seq_length tokens: truncate, refuse, or nothing."""
    labels: tuple[str, ...] = ()
    """The classes of a version that is trained on, in the order of its logits."""
    adapter: Adapter = field(default_factory=Lora)
    """What of the model is trained."""
    problem_type: str = ""
    """What transformers calls the kind of those classes; empty where the version does not say."""
    continued: bool = False
    """Whether the job starts from a version, not from a base model."""

    model_dir: str = ""
    """Folder of the whole weights."""

    def __post_init__(self) -> None:
        """No sequence is longer than the model has positions for, whatever the specification says."""
        table, wanted = positions(self.config), self.hyperparameters
        if table is not None and table < wanted.max_seq_length:
            object.__setattr__(self, "hyperparameters", replace(wanted, max_seq_length=table))

    @property
    def longest(self) -> int:
        """Tokens of a sequence at most, where the tokenizer's word counts too."""
        return longest_sequence(self.config, self.tokenizer, self.hyperparameters.max_seq_length)


@dataclass(frozen=True)
class Settling:
    """What an objective may look at once, before the first step: the model as it starts, all examples, and the
    second model of the job.
    """

    model: torch.nn.Module
    examples: tuple[Example, ...]
    """Of training, validation and evaluation parts."""
    auxiliary: Callable[[], AuxiliaryModel]
    """Loads the second model. Raises SpecError where the job names none."""
    poll: Callable[[], object]
    """Call often. Raises Cancelled."""
    device: torch.device


@dataclass(frozen=True)
class AuxiliaryModel:
    """Where the second model of a job is: a teacher, a reward model, an encoder."""

    folder: str
    """Of the whole weights."""
    adapter: str
    """Folder of an adapter on them; empty: none."""


def unchanged(objective: T, _: object) -> T:
    """The objective has nothing to look at."""
    return objective


def _given(_: TrainingSpec, __: str, ___: Streams) -> None:
    return None


def _plain_files(_: object, model: torch.nn.Module, tokenizer: Any, name: str, scratch: str) -> Mapping[str, bytes]:  # noqa: ANN401
    return export_files(model, tokenizer, name, scratch)


def load_packed(model_dir: str, objective: object, device: torch.device) -> Base:  # noqa: ARG001 - one shape for all
    """A causal model for objectives that pack; where packing would change its results, it runs padded.

    Raises TrainerError MODEL_INVALID, MODEL_UNSUPPORTED.
    """
    base = load_causal(model_dir, device)
    settle_packing(base.model, device)
    return base


@dataclass(frozen=True, kw_only=True)
class TrainingMethod(Generic[T]):
    """One way to train."""

    name: Method
    objective: Callable[[Setup], T]
    """Raises SpecError for settings that do not fit."""
    load: Callable[[str, T, torch.device], Base] = load_packed
    """From a folder of whole weights, once the objective is fitted. Raises TrainerError."""
    fitted: Callable[[T, Sequence[Example]], T] = unchanged
    """The objective once the training rows are read: what they alone tell, such as the classes. Raises TrainerError."""
    settled: Callable[[T, Settling], T] = unchanged
    """The objective once the model is there, such as with the log-probabilities of the model as it starts."""
    vocabulary: Callable[[TrainingSpec, str, Streams], tuple[Any, Streams] | None] = _given
    """From the specification, the model's folder and the inputs: a tokenizer made of the rows, and the inputs with what
    was read of them put back. None: the model's own is used. Raises SpecError."""
    files: Callable[[T, torch.nn.Module, Any, str, str], Mapping[str, bytes]] = _plain_files
    """What of the trained model is exported: from the objective, the model, its tokenizer, its given name and a folder
    to work in."""
    padded: bool = False
    """Whether its batches are padded, so that the tokenizer must have a token for that."""
    chat: bool = False
    """Whether rows may be chats, so that the tokenizer must have a template."""

    def tokenizer(self, folder: str) -> Any:  # noqa: ANN401 - transformers' own type is dynamic
        """The tokenizer as the method needs it. Raises TrainerError MODEL_INVALID."""
        return load_tokenizer(folder, padded=self.padded, chat=self.chat)
