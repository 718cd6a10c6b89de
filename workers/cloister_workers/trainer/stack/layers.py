# SPDX-License-Identifier: Apache-2.0
"""The layers of the version that a job starts from: weights, then an index, then demonstrations; each at most once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from cloister_workers.errors import SpecError, TrainerError
from cloister_workers.messages import DatasetRole, FailureCode, SpecField
from cloister_workers.trainer.layer import (
    Layer,
    LayerKind,
    applied,
    kind_of,
    model_dir,
    read_layer,
    tokenizer_dir,
    weights_of,
)
from cloister_workers.trainer.method import TrainingMethod
from cloister_workers.trainer.place import Inputs, Workplace, auxiliary_model
from cloister_workers.trainer.running import Job
from cloister_workers.trainer.stack.composer import Composer
from cloister_workers.trainer.stack.demonstrations import Demonstrations, read_demonstrations
from cloister_workers.trainer.stack.encoder import Encoder, load_encoder
from cloister_workers.trainer.stack.index import Index, read_index

LAYER_ROLES = (DatasetRole.LAYER, DatasetRole.LAYER_2, DatasetRole.LAYER_3)


@dataclass(frozen=True)
class Stack:
    """A version's layers on its base model."""

    weights: Layer | None = None
    index: Index | None = None
    demonstrations: Demonstrations | None = None

    @property
    def kinds(self) -> tuple[LayerKind, ...]:
        """What it has, from the base upwards."""
        weights = LayerKind.MERGED_WEIGHTS if self.weights and self.weights.adapter is None else LayerKind.ADAPTER
        found = (
            (self.weights, weights),
            (self.index, LayerKind.RETRIEVAL_INDEX),
            (self.demonstrations, LayerKind.DEMONSTRATIONS),
        )
        return tuple(kind for layer, kind in found if layer is not None)

    def first(self, count: int) -> Stack:
        """The lowest `count` layers alone."""
        return self.only(*self.kinds[:count])

    def only(self, *kinds: LayerKind) -> Stack:
        """These layers alone."""
        return Stack(
            self.weights if any(kind.is_weights for kind in kinds) else None,
            self.index if LayerKind.RETRIEVAL_INDEX in kinds else None,
            self.demonstrations if LayerKind.DEMONSTRATIONS in kinds else None,
        )

    @property
    def prompts(self) -> bool:
        """Whether it puts anything before a question."""
        return self.index is not None or self.demonstrations is not None

    @property
    def encoders(self) -> tuple[str, ...]:
        """Digests of the encoders that its vectors come from."""
        named = (self.index.encoder if self.index else "", self.demonstrations.encoder if self.demonstrations else "")
        return tuple(digest for digest in named if digest)

    def model_dir(self, base: str) -> str:
        """Where the whole weights are."""
        return model_dir(self.weights, base)

    def tokenizer_dir(self, base: str) -> str:
        """Where the tokenizer is."""
        return tokenizer_dir(self.weights, base)

    def model(self, method: TrainingMethod[Any], objective: object, place: Workplace, seed: int) -> torch.nn.Module:
        """The model with the weights layer in force, to be asked. A head that no layer brings is drawn by `seed`.

        Raises TrainerError MODEL_INVALID, SpecError where the adapter is for another kind of model.
        """
        torch.manual_seed(seed)
        base = method.load(self.model_dir(place.model_dir), objective, place.device)
        return applied(base, self.weights)

    def composer(self, tokenizer: Any, encoder: Encoder | None) -> Composer:  # noqa: ANN401
        """What puts its demonstrations and passages before questions; `encoder` as `encoder_of` gives it."""
        return Composer(tokenizer, self.index, self.demonstrations, encoder if self.encoders else None)


def read_stack(inputs: Inputs, scratch: str) -> Stack:
    """The layers among a job's inputs, unpacked under `scratch`.

    Raises TrainerError MODEL_INVALID where one is damaged, or they are not in the order of a version.
    """
    stack = Stack()
    for role in LAYER_ROLES:
        if role not in inputs:
            continue
        files = read_layer(inputs[role])
        kind, count = kind_of(files), len(stack.kinds)
        if kind.is_weights:
            stack = replace(stack, weights=weights_of(files, scratch))
        elif kind is LayerKind.RETRIEVAL_INDEX:
            stack = replace(stack, index=read_index(files))
        else:
            stack = replace(stack, demonstrations=read_demonstrations(files))
        if stack.kinds[count:] != (kind,):
            raise TrainerError(
                FailureCode.MODEL_INVALID,
                f"layer {count + 1} of the version is of kind {kind}, which cannot stand there; the order is weights, "
                "index, demonstrations, each once",
            )
    return stack


def encoder_of(stack: Stack, job: Job) -> Encoder | None:
    """The encoder that the stack's vectors come from; None where it has none. Raises as `job_encoder`."""
    return job_encoder(stack, job) if stack.encoders else None


def job_encoder(stack: Stack, job: Job) -> Encoder:
    """The job's auxiliary model as encoder, the one that the stack's vectors come from.

    Raises SpecError where no auxiliary model is named, or another one than made the vectors; TrainerError
    MODEL_INVALID where it is no encoder.
    """
    encoder = load_encoder(auxiliary_model(job.inputs, job.place), job.place.device, job.poll)
    if set(stack.encoders) - {encoder.digest}:
        raise SpecError(
            FailureCode.SPEC_INVALID,
            SpecField.AUXILIARY_MODEL,
            f"auxiliary_model has weights {encoder.digest[:12]}, the version's vectors were made with "
            f"{' and '.join(sorted({digest[:12] for digest in stack.encoders}))}; name the encoder of the job that "
            "made them",
        )
    return encoder
