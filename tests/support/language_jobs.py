# SPDX-License-Identifier: Apache-2.0
"""Jobs of language modelling in the test's own process, and made-up texts for them."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from cloister_workers.messages import (
    EvaluationPhase,
)
from cloister_workers.trainer.bundle import read_bundle
from cloister_workers.trainer.spec import TrainingSpec, parse_spec
from tiny_models import WORDS

Table = Mapping[str, object]
CPU = torch.device("cpu")
TRAINED = {"initialisation": "random", "tokenizer": "trained", "vocabulary_size": 300}
SMALL = {
    "vocab_size": 300,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
KV = {**SMALL, "num_key_value_heads": 2}
WINDOWS = {**KV, "head_dim": 8, "sliding_window": 8}


def texts(count: int, longest: int = 9) -> list[str]:
    return [" ".join(WORDS[(n * s + s) % 10] for s in range(1, 4 + n % longest)) for n in range(count)]


def jsonl(rows: Iterable[str]) -> bytes:
    return "\n".join(json.dumps({"text": text}) for text in rows).encode()


def spec_of(
    settings: Any = None,  # noqa: ANN401 - tables of a specification
    data: Any = None,  # noqa: ANN401
    adapter: Any = None,  # noqa: ANN401
    **hyperparameters: Any,  # noqa: ANN401
) -> TrainingSpec:
    given = {"batch_size": 8, "max_seq_length": 8, "learning_rate": 0.01, "n_epochs": 2, **hyperparameters}
    method = {"language_modeling": {**(settings or {}), "hyperparameters": given}}
    return parse_spec(
        {"model": "tiny", "seed": "5", "data": data or {}, "method": method, "adapter": adapter or {"full": {}}}
    )


def measured(recorder: Any, phase: EvaluationPhase = EvaluationPhase.AFTER) -> Any:  # noqa: ANN401
    return next(entry[2] for entry in recorder.messages if isinstance(entry, tuple) and entry[0] is phase)


def unpacked(recorder: Any, directory: Path) -> Path:  # noqa: ANN401
    directory.mkdir()
    for name, content in read_bundle(io.BytesIO(recorder.bundles[-1])).items():
        (directory / name).write_bytes(content)
    return directory
