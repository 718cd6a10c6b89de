# SPDX-License-Identifier: Apache-2.0
"""Demonstrations: examples that are shown before a question, and the files of the layer.

    demonstrations.json   the rule, how many are shown, the examples, the encoder's digest
    vectors.safetensors   rule nearest only: "vectors", float16 [examples, d], of length 1, of the examples' questions

Under the rules random and best the examples of the layer are the ones shown, always and in their order. Under nearest
they are what the `shots` nearest to each question are taken from (Liu et al. 2022, "What makes good in-context examples
for GPT-3?"); the nearest one stands last, next to the question.
"""

from __future__ import annotations

import json
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from cloister_workers.errors import TrainerError
from cloister_workers.messages import FailureCode, RowReason
from cloister_workers.trainer.layer import DEMONSTRATIONS_FILE
from cloister_workers.trainer.stack.shots import Shot, read_shot

_VECTORS_FILE = "vectors.safetensors"
NOTHING: frozenset[bytes] = frozenset()


class Selection(StrEnum):
    """The rule by which examples are chosen."""

    RANDOM = "random"
    NEAREST = "nearest"
    BEST = "best"


@dataclass(frozen=True)
class Demonstrations:
    """Examples and the rule by which they are shown."""

    rule: Selection
    shots: int
    """How many are shown with a question, at most."""
    examples: tuple[Shot, ...]
    vectors: torch.Tensor | None = None
    """Rule nearest: float16 [examples, d]."""
    encoder: str = ""
    """Digest of the encoder that made the vectors; empty where there are none."""

    def shown(self, question: torch.Tensor | None, exclude: Container[bytes] = NOTHING) -> list[Shot]:
        """The examples for one question, the one to stand farthest from it first.

        `question`: float32 [d], under rule nearest. `exclude`: digests of questions whose examples are left out, so
        that no question is shown its own answer.
        """
        if self.vectors is None or question is None:
            return [shot for shot in self.examples if shot.group not in exclude]
        order = (self.vectors.to(question.device).float() @ question).argsort(descending=True, stable=True).tolist()
        usable = (self.examples[place] for place in order if self.examples[place].group not in exclude)
        return [shot for shot, _ in zip(usable, range(self.shots), strict=False)][::-1]

    def check(self) -> None:
        """Raise ValueError where rule, examples and vectors do not go together."""
        wanted = len(self.examples) if self.rule is Selection.NEAREST else 0
        if wanted != (0 if self.vectors is None else len(self.vectors)):
            raise ValueError("not as many vectors as the rule needs")

    def files(self) -> dict[str, bytes]:
        """The files of the layer."""
        table = {
            "selection": self.rule,
            "shots": self.shots,
            "encoder": self.encoder,
            "examples": [shot.row() for shot in self.examples],
        }
        text = json.dumps(table, sort_keys=True, ensure_ascii=False) + "\n"
        files = {DEMONSTRATIONS_FILE: text.encode()}
        if self.vectors is not None:
            files[_VECTORS_FILE] = save_tensors({"vectors": self.vectors.cpu().contiguous()}, {"format": "pt"})
        return files


def read_demonstrations(files: Mapping[str, bytes]) -> Demonstrations:
    """The demonstrations of a layer's files. Raises TrainerError MODEL_INVALID where they do not go together."""
    try:
        table: dict[str, Any] = json.loads(files[DEMONSTRATIONS_FILE])
        vectors = load_tensors(files[_VECTORS_FILE])["vectors"] if _VECTORS_FILE in files else None
        examples = _examples(table["examples"])
        rule = Selection(table["selection"])
        found = Demonstrations(rule, int(table["shots"]), examples, vectors, str(table["encoder"]))
        found.check()
    except (ValueError, KeyError, TypeError, SafetensorError) as error:
        raise TrainerError(
            FailureCode.MODEL_INVALID,
            "the version's demonstrations cannot be used: their files do not go together; make them again",
        ) from error
    return found


def _examples(rows: Sequence[dict[str, object]]) -> tuple[Shot, ...]:
    shots = [read_shot(row, chat=False) for row in rows]
    found = tuple(shot for shot in shots if not isinstance(shot, RowReason))
    if not found or len(found) != len(shots):
        raise ValueError("an example is none")
    return found
