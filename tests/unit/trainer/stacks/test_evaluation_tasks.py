# SPDX-License-Identifier: Apache-2.0
"""Every training method that a version can be made by can be evaluated on that version."""

from __future__ import annotations

from typing import Any

import pytest

from cloister_workers.errors import RowsRefused
from cloister_workers.messages import MetricName, RowReason
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


def test_completions_with_a_verdict_are_evaluated_as_kto(bench):
    """Rows with a verdict are read by their own form: the base is its own reference, the version is better."""
    rows = [
        {"prompt": question(entity), "completion": f" a{number % 2 + 1}", "label": number % 2 == 0}
        for number, entity in enumerate(ENTITIES)
    ]
    settings = {"n_epochs": 3, "batch_size": 8, "max_seq_length": 32, "learning_rate": 0.003}
    made = bench.run({"preference": {"loss": "kto", "hyperparameters": settings}}, training=jsonl(rows))
    asked = {"evaluation": {"task": "preference", "max_seq_length": 32}}
    phases = bench.run(asked, evaluation=jsonl(rows), layer=made.bundle).phases()
    base, version = phases["before", 0], phases["after", 1]
    assert 0.5 == pytest.approx(base[MetricName.EVAL_LOSS])
    assert version[MetricName.EVAL_LOSS] < base[MetricName.EVAL_LOSS]
    assert version[MetricName.EVAL_MARGIN] > 0


def test_rows_of_two_forms_are_refused_by_number(bench, new_recorder):
    """The first row of a preference says the form; those of the other are refused, whichever is first."""
    verdict: dict[str, object] = {"prompt": "e1", "completion": " a1", "label": True}
    pair: dict[str, object] = {**PAIRS[0]}
    for rows in ([verdict, pair], [pair, verdict]):
        recorder = new_recorder()
        with pytest.raises(RowsRefused):
            type(bench)(bench.model, bench.scratch, lambda told=recorder: told).run(
                {"evaluation": {"task": "preference"}}, evaluation=jsonl(rows)
            )
        assert ((2, RowReason.MISSING_KEY),) == recorder.messages[-1].errors


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
