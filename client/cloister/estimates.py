# SPDX-License-Identifier: Apache-2.0
"""What a training job will take, estimated from signed sizes before anything is signed.

Only sizes are known here: bytes of the model's files and of the rows, and the number of rows.  So everything is an
estimate; docs/reference/estimates.md says by which formula and how far it may be off.

    parameters    P = bytes of the files / 2, as if all were 16-bit weights; files in float32 hold half as many
    width         d = (64 P / 12)^(1/3), depth d / 64: P = 12 depth d^2 (Kaplan et al. 2020), heads of 64
    trained       T = P; with LoRA of rank r 4 r d a block (two matrices), 18 r d where all linear ones learn
    memory        weights + trained (gradient, two moments, on a GPU a float32 copy) + activations of a micro batch,
                  34 d bytes a token and block in 16 bits (Korthikanti et al. 2022, without the attention matrix)
    work          6 P operations a token where every weight learns, 4 P beside an adapter, 2 P to evaluate; once 2 P
                  for a reference, 2 P of the teacher each time
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from cloister.api.v1 import spec_pb2
from cloister.evidence.manifest import VerifiedObject
from cloister.lineage import Start
from cloister.spec import Spec, hyperparameters_of

STORED = 2
BYTES_A_TOKEN = 4
"""Of English text in UTF-8; other languages and code have more tokens."""
HEAD = 64
ACTIVATIONS = 34
REPLAY_HELD_OUT = 0.2
NF4 = 0.56
"""Bytes of a 4-bit weight with its scales."""


@dataclass(frozen=True)
class Device:
    """A kind of host."""

    name: str
    weight: float
    """Bytes of a weight at rest."""
    trained: int
    """Further bytes of a weight that learns."""
    speed: float
    """Operations a second that are taken to be reached."""


GPU = Device("GPU", 2, 16, 1.5e14)
CPU = Device("CPU", 4, 12, 5e10)
DEVICES = (GPU, CPU)


@dataclass(frozen=True)
class Cost:
    """On one kind of host."""

    device: str
    memory: int
    """Bytes."""
    seconds: float


@dataclass(frozen=True)
class Estimate:
    """Of a training job."""

    training_rows: int
    """At most: rows that are refused, repeated or held out together are not known here."""
    steps: int
    """At most; about, where the length of texts decides (`by_length`)."""
    tokens: int
    """Of all passes over the training rows."""
    parameters: int
    trained: int
    costs: tuple[Cost, ...]
    by_length: bool = False
    """Whether a long text becomes several examples, so that steps go by the mean length of the rows too."""


@dataclass(frozen=True)
class Passes:
    """What the loop goes through."""

    steps: int
    examples: int
    """Of all steps."""
    length: float
    """Tokens of an example."""


def estimate(
    spec: Spec, start: Start, data: Mapping[str, VerifiedObject], auxiliary: Start | None = None
) -> Estimate | None:
    """What a resolved specification takes; None where it trains nothing in the loop, or de-biases."""
    wanted = hyperparameters_of(spec)
    if wanted is None or "training" not in data or spec.method.WhichOneof("type") == "debias":
        return None
    rows, by_length = _rows(spec, data), _cuts_texts(spec)
    whole = _tokens_a_row(data["training"])
    length = whole if by_length else min(whole, wanted.max_seq_length)
    passes = _passes(spec, wanted, rows, length)
    parameters = start.base.trailer.plaintext_size // STORED
    teacher = 0 if auxiliary is None else auxiliary.base.trailer.plaintext_size // STORED
    trained = _trained(spec, parameters)
    tokens = round(passes.examples * passes.length)
    work: float = tokens * (parameters * (6 if trained == parameters else 4) + 2 * teacher)
    work += 2 * parameters * length * (wanted.n_evals * _held_out(spec, data) + (rows if _has_reference(spec) else 0))
    micro = (wanted.micro_batch_size or wanted.batch_size) * wanted.max_seq_length
    costs = []
    for device in DEVICES:
        resting = parameters * (NF4 if spec.adapter.lora.quantization == "nf4" else device.weight)
        learning = trained * (device.trained + (4 if wanted.keep_best else 0))
        memory = resting + teacher * device.weight + learning + _activations(device, parameters, micro)
        costs.append(Cost(device.name, round(memory), work / device.speed))
    return Estimate(rows, passes.steps, tokens, parameters, trained, tuple(costs), by_length)


def width_of(parameters: float) -> float:
    """Width of a transformer of so many weights."""
    return math.cbrt(parameters * HEAD / 12)


def _rows(spec: Spec, data: Mapping[str, VerifiedObject]) -> int:
    """Training rows after the splits, with those that are replayed."""
    given = data["training"].trailer.rows or 0
    rows = min(given, spec.data.max_rows) if spec.data.max_rows else given
    rows -= round(spec.data.evaluation_fraction * rows) + round(spec.data.validation_fraction * rows)
    if "replay" not in data:
        return rows
    earlier = data["replay"].trailer.rows or 0
    own = spec_pb2.ReplaySplit(evaluation_fraction=spec.data.evaluation_fraction or REPLAY_HELD_OUT)
    cut = spec.data.replay_split if spec.data.HasField("replay_split") else own
    earlier = min(earlier, cut.max_rows) if cut.max_rows else earlier
    earlier -= round(cut.evaluation_fraction * earlier) + round(cut.validation_fraction * earlier)
    return rows + min(earlier, round(rows * spec.data.replay_ratio / (1 - spec.data.replay_ratio)))


def _held_out(spec: Spec, data: Mapping[str, VerifiedObject]) -> float:
    """Validation rows."""
    if "validation" in data:
        return data["validation"].trailer.rows or 0
    return spec.data.validation_fraction * (data["training"].trailer.rows or 0)


def _tokens_a_row(found: VerifiedObject) -> float:
    trailer = found.trailer
    return trailer.plaintext_size / BYTES_A_TOKEN / max(1, trailer.rows or 1)


def _cuts_texts(spec: Spec) -> bool:
    """Whether texts of more than max_seq_length tokens go on in further examples."""
    return spec.method.WhichOneof("type") in ("language_modeling", "distillation") and not spec.data.too_long


def _passes(spec: Spec, wanted: spec_pb2.Hyperparameters, rows: int, length: float) -> Passes:
    """As the trainer plans them for rows of this many tokens."""
    batch = wanted.batch_size
    if spec.method.WhichOneof("type") == "reinforcement":
        # A batch counts answers, and a step whose prompts do not fill it is not taken.
        new = spec.method.reinforcement.max_new_tokens
        steps = wanted.max_steps or wanted.n_epochs * (rows * spec.method.reinforcement.generations // batch)
        return Passes(steps, steps * batch, min(length, wanted.max_seq_length - new) + new)
    # Between two marks, each piece starts with the last token of the one before.
    pieces = math.ceil((length + 1) / (wanted.max_seq_length - 1)) if _cuts_texts(spec) else 1
    examples = rows * pieces
    steps = wanted.max_steps or wanted.n_epochs * math.ceil(examples / batch)
    return Passes(steps, steps * batch if wanted.max_steps else wanted.n_epochs * examples, length / pieces)


def _has_reference(spec: Spec) -> bool:
    return spec.method.WhichOneof("type") == "preference" and spec.method.preference.loss in ("dpo", "ipo", "kto")


def _trained(spec: Spec, parameters: int) -> int:
    adapter = spec.adapter.WhichOneof("type")
    if adapter == "full":
        return parameters
    width = width_of(parameters)
    if adapter == "head":
        return round(width * width)
    matrices = 18 if "all-linear" in spec.adapter.lora.target_modules else 4
    return round(min(parameters, matrices * spec.adapter.lora.rank * width * width / HEAD))


def _activations(device: Device, parameters: int, tokens: int) -> float:
    width = width_of(parameters)
    return tokens * ACTIVATIONS * (device.weight / 2) * width * width / HEAD
