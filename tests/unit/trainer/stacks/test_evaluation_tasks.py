# SPDX-License-Identifier: Apache-2.0
"""Every training method that a version can be made by can be evaluated on that version."""

from __future__ import annotations

from typing import Any

import pytest

from cloister_workers.messages import MetricName
from cloister_workers.trainer.catalogue import training_methods
from copying_model import ENTITIES, question
from stack_jobs import jsonl

PAIRS = [{"prompt": question(entity), "chosen": " a1", "rejected": " a2"} for entity in ENTITIES]
ROWS: dict[str, list[Any]] = {
    "supervised": [{"prompt": question(entity), "completion": " a1"} for entity in ENTITIES],
    "classification": [
        {"text": f"{entity} a{number % 2}", "label": number % 2} for number, entity in enumerate(ENTITIES)
    ],
    "language_modeling": [{"text": f"{entity} is the colour a1"} for entity in ENTITIES],
    "preference": PAIRS,
    "question_answering": [
        {"context": f"the colour a{number % 4}", "question": question(entity), "answers": [f"a{number % 4}"]}
        for number, entity in enumerate(ENTITIES)
    ],
    "reward": PAIRS,
}
"""Rows that a causal model can be trained on, by method."""


@pytest.mark.parametrize("task", sorted(set(ROWS) & {method.value for method in training_methods()}))
def test_a_version_is_evaluated_by_the_method_that_made_it(bench, task):
    """On held-out rows an evaluation job says what the training job said, and that the version beats the base."""
    training, held = ROWS[task][:30], jsonl(ROWS[task][30:])
    settings = {"n_epochs": 3, "batch_size": 8, "max_seq_length": 32, "learning_rate": 0.003}
    more = {"form": "generative"} if task == "question_answering" else {}
    made = bench.run({task: {"hyperparameters": settings, **more}}, training=jsonl(training), evaluation=held)
    asked = {"evaluation": {"task": task, "max_seq_length": 32}}
    phases = bench.run(asked, evaluation=held, layer=made.bundle).phases()
    trained = made.phases()["after", 0]
    assert phases["after", 1][MetricName.EVAL_LOSS] < phases["before", 0][MetricName.EVAL_LOSS]
    assert trained[MetricName.EVAL_LOSS] == pytest.approx(phases["after", 1][MetricName.EVAL_LOSS], abs=1e-5)
