# SPDX-License-Identifier: Apache-2.0
"""STATE checkpoints: everything that the loop needs to go on as if it had never stopped.

A bundle of two files. `state.safetensors`: optimiser tensors by name (see `optimiser`), under `objective/` what a
stateful objective remembers, `rng/cpu` and, on a GPU, `rng/cuda`, both uint8. `state.json`: the loop state, and a
fingerprint of spec and examples so that a checkpoint of another job is refused. Numbers in JSON keep every bit
(Python writes the shortest form that reads back equal).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from cloister_workers.errors import TrainerError
from cloister_workers.messages import FailureCode, MetricName
from cloister_workers.trainer.bundle import read_bundle, write_bundle
from cloister_workers.trainer.example import Example
from cloister_workers.trainer.objectives import Objective, Stateful
from cloister_workers.trainer.optimiser import Optimiser
from cloister_workers.trainer.spec import TrainingSpec

_FORMAT = 1
_TENSORS, _STATE = "state.safetensors", "state.json"
_OBJECTIVE = "objective/"


@dataclass(frozen=True)
class LoopState:
    """Where training stands after `step` steps; `loss` is that step's, `before` the metrics before step 1."""

    step: int = 0
    trained_tokens: int = 0
    loss: float = 0.0
    before: tuple[tuple[MetricName, float], ...] = ()
    micro_batch_size: int = 0
    """As it was found on the first host; 0 where the specification says it."""
    best_step: int = 0
    """The evaluation with the lowest validation loss; 0 before the first."""
    best_loss: float = 0.0
    waited: int = 0
    """Evaluations since then."""


def fingerprint(spec: TrainingSpec, examples: Iterable[Example]) -> str:
    """SHA-256 over the spec and the training examples in order: what must be equal for a resume to be
    exact.
    """
    state = hashlib.sha256(json.dumps(asdict(spec), sort_keys=True).encode())
    for example in examples:
        state.update(example.digest)
    return state.hexdigest()


def save_checkpoint(optimiser: Optimiser, state: LoopState, mark: str, objective: Objective | None = None) -> int:
    """A sealed memfd with the checkpoint; the caller closes it. A stateful objective must be given."""
    held = optimiser.state()
    if isinstance(objective, Stateful):
        held |= {_OBJECTIVE + name: tensor for name, tensor in objective.state().items()}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in held.items()}
    tensors["rng/cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors["rng/cuda"] = torch.cuda.get_rng_state()
    document = {"format": _FORMAT, "fingerprint": mark, "loop": asdict(state)}
    return write_bundle({_TENSORS: save(tensors), _STATE: json.dumps(document, sort_keys=True).encode()})


def load_checkpoint(stream: BinaryIO, optimiser: Optimiser, mark: str, objective: Objective | None = None) -> LoopState:
    """Restore optimiser, weights, random state and the memory of a stateful objective from a checkpoint, and return
    where to go on.

    Raises TrainerError CHECKPOINT_INVALID where it is damaged or belongs to another job.
    """
    try:
        files = read_bundle(stream)
        document = json.loads(files[_STATE])
        if document["format"] != _FORMAT or document["fingerprint"] != mark:
            raise _invalid("it belongs to another spec, dataset or version")
        state = _loop_state(document["loop"])
        tensors = load(files[_TENSORS])
        cpu, cuda = tensors.pop("rng/cpu"), tensors.pop("rng/cuda", None)
        remembered = {name: tensors.pop(name) for name in [*tensors] if name.startswith(_OBJECTIVE)}
        optimiser.load(tensors)
        if isinstance(objective, Stateful):
            objective.load({name.removeprefix(_OBJECTIVE): tensor for name, tensor in remembered.items()})
    except (ValueError, KeyError, TypeError, SafetensorError, RecursionError) as error:
        raise _invalid("it is damaged or of another model") from error
    torch.set_rng_state(cpu)
    if cuda is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(cuda)
    return state


def _loop_state(table: dict[str, Any]) -> LoopState:
    """Raises KeyError, TypeError, ValueError."""
    whole = ("step", "trained_tokens", "micro_batch_size", "best_step", "waited")
    return LoopState(
        before=tuple((MetricName(name), float(value)) for name, value in table["before"]),
        loss=float(table["loss"]),
        best_loss=float(table["best_loss"]),
        **{name: int(table[name]) for name in whole},
    )


def _invalid(why: str) -> TrainerError:
    return TrainerError(FailureCode.CHECKPOINT_INVALID, f"the checkpoint cannot be resumed: {why}; start the job anew")
