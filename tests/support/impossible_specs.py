# SPDX-License-Identifier: Apache-2.0
"""Specifications whose fields are each in their range and do not go together: what client and trainer say of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from cloister.spec import NO_TRAINING

NO_SPLIT = {"validation_fraction": 0.0, "evaluation_fraction": 0.2}
TRUNCATE = {"too_long": "truncate"}


@dataclass(frozen=True)
class Impossible:
    """One of them."""

    method: str
    settings: Mapping[str, object]
    said: str
    """What the client's words hold: the setting and its value."""
    param: str
    """The field that the trainer's code names; empty where the trainer lets it be."""
    adapter: Mapping[str, object] | None = None
    data: Mapping[str, object] = field(default_factory=dict)

    def values(self) -> dict[str, object]:
        """As it stands in YAML."""
        rows = "evaluation_dataset" if self.method in NO_TRAINING else "training_dataset"
        adapter = {} if self.adapter is None else {"adapter": self.adapter}
        method = {self.method: self.settings}
        return {"model": "m", rows: "d", "purpose": "p", "data": self.data, "method": method, **adapter}


def _training(**values: object) -> dict[str, object]:
    return {"hyperparameters": values}


_SHORT = {"max_seq_length": 64, "max_new_tokens": 64}
RANDOM = {"initialisation": "random"}
SPECS: Mapping[str, Impossible] = {
    "fractions": Impossible(
        "supervised",
        {},
        "validation_fraction 0.5 and evaluation_fraction 0.5",
        "evaluation_fraction",
        data={"validation_fraction": 0.5, "evaluation_fraction": 0.5},
    ),
    "no rate": Impossible("supervised", _training(learning_rate=0), "learning_rate is 0", "learning_rate"),
    "wide micro batch": Impossible(
        "supervised", _training(batch_size=4, micro_batch_size=8), "micro_batch_size is 8, above batch_size 4", ""
    ),
    "keep best of none": Impossible(
        "supervised", _training(keep_best=True), "keep_best is true", "keep_best", data=NO_SPLIT
    ),
    "patience with none": Impossible(
        "supervised",
        _training(early_stop_patience=3),
        "early_stop_patience is 3",
        "early_stop_patience",
        data=NO_SPLIT,
    ),
    "no scale": Impossible("supervised", {}, "alpha is 0", "alpha", {"lora": {"alpha": 0}}),
    "nameless module": Impossible(
        "supervised", {}, "target_modules holds an empty name", "target_modules", {"lora": {"target_modules": [""]}}
    ),
    "merged 4 bits": Impossible(
        "supervised",
        {},
        "quantization is nf4 with merge",
        "quantization",
        {"lora": {"quantization": "nf4", "merge": True}},
    ),
    "head of a language model": Impossible("supervised", {}, "adapter is head", "adapter", {"head": {}}),
    "head of a generator": Impossible(
        "question_answering", {"form": "generative"}, "adapter is head", "adapter", {"head": {}}
    ),
    "weights of several": Impossible(
        "classification",
        {"problem_type": "multi_label", "class_weights": "balanced"},
        "class_weights is balanced with problem_type multi_label",
        "class_weights",
    ),
    "own tokenizer": Impossible(
        "language_modeling", {"tokenizer": "trained"}, "tokenizer is trained", "tokenizer", {"full": {}}
    ),
    "adapter on random weights": Impossible("language_modeling", RANDOM, "initialisation is random", "adapter"),
    "cut prompt": Impossible(
        "question_answering", {"form": "generative"}, "too_long is truncate", "too_long", data=TRUNCATE
    ),
    "smoothing of ipo": Impossible(
        "preference",
        {"loss": "ipo", "label_smoothing": 0.1},
        "label_smoothing is 0.1 with loss ipo",
        "label_smoothing",
    ),
    "cut preference": Impossible("preference", {}, "too_long is truncate", "too_long", data=TRUNCATE),
    "cut reward": Impossible("reward", {}, "too_long is truncate", "too_long", data=TRUNCATE),
    "cut exercise": Impossible("reinforcement", {}, "too_long is truncate", "too_long", data=TRUNCATE),
    "cut exam": Impossible("evaluation", {"task": "preference"}, "too_long is truncate", "too_long", data=TRUNCATE),
    "broken groups": Impossible(
        "reinforcement", {"generations": 5, **_training(batch_size=16)}, "batch_size is 16", "batch_size"
    ),
    "no micro batch": Impossible(
        "reinforcement",
        _training(batch_size=16, micro_batch_size=0),
        "micro_batch_size is 0",
        "micro_batch_size",
    ),
    "best of reinforcement": Impossible(
        "reinforcement", _training(batch_size=16, micro_batch_size=16, keep_best=True), "keep_best is true", "keep_best"
    ),
    "patience of reinforcement": Impossible(
        "reinforcement",
        _training(batch_size=16, micro_batch_size=16, early_stop_patience=2),
        "early_stop_patience is 2",
        "early_stop_patience",
    ),
    "no room to reinforce": Impossible(
        "reinforcement",
        {"max_new_tokens": 64, **_training(batch_size=16, micro_batch_size=16, max_seq_length=64)},
        "max_seq_length is 64",
        "max_seq_length",
    ),
    "nothing to compare with": Impossible(
        "reinforcement",
        {"beta": 0.5, **_training(batch_size=16, micro_batch_size=16)},
        "beta is 0.5",
        "adapter",
        {"full": {}},
    ),
    "no judge": Impossible(
        "reinforcement",
        {"reward": "model", "max_new_tokens": 8, **_training(batch_size=16, micro_batch_size=16, max_seq_length=32)},
        "auxiliary_model is missing, and reward is model",
        "auxiliary_model",
    ),
    "no teacher": Impossible("distillation", {}, "auxiliary_model is missing", "auxiliary_model"),
    "no encoder": Impossible("retrieval", {}, "auxiliary_model is missing", "auxiliary_model"),
    "wide overlap": Impossible("retrieval", {"chunk_tokens": 16, "overlap": 9}, "overlap is 9", "overlap"),
    "nearest by nothing": Impossible(
        "in_context",
        {"selection": "nearest"},
        "auxiliary_model is missing, and selection is nearest",
        "auxiliary_model",
    ),
    "no room to show": Impossible("in_context", _SHORT, "max_seq_length is 64", "max_seq_length"),
    "no task": Impossible("evaluation", {}, "task is missing", "task"),
    "no room to answer": Impossible("inference", _SHORT, "max_seq_length is 64", "max_seq_length"),
}
"""By what is wrong.  The trainer tells the lack of validation rows to choose by (`best`) as TOO_FEW_ROWS, so that one
is not among them."""
