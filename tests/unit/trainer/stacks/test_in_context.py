# SPDX-License-Identifier: Apache-2.0
"""In-context jobs: demonstrations help, the rules choose as they say, and too little to choose from is refused."""

from __future__ import annotations

import json

import pytest

from cloister_workers.errors import RowsRefused, SpecError, TrainerError
from cloister_workers.messages import FailureCode, FailureNumber, MetricName, Result, RowReason
from copying_model import ENTITIES, question
from stack_jobs import jsonl

SHARES = {"validation_fraction": 0.2, "evaluation_fraction": 0.3}


def row(entity: str, answer: str) -> dict[str, object]:
    return {"prompt": f"{question(entity)}\nAnswer:", "completion": f" {answer}"}


def in_context(**settings: object) -> dict[str, object]:
    return {"in_context": {"shots": 2, "max_seq_length": 100, "max_new_tokens": 4, **settings}}


ALIKE = jsonl([row(entity, "a6") for entity in ENTITIES])
"""Every question has one answer."""


@pytest.mark.parametrize("selection", ["random", "best", "nearest"])
def test_demonstrations_help_on_held_out_questions(bench, selection):
    """Shown examples of the same kind, the model answers better than zero-shot, beyond the intervals."""
    done = bench.run(in_context(selection=selection, draws=2), SHARES, training=ALIKE)
    before, after = done.phases()["before", 0], done.phases()["after", 0]
    assert 12.0 == before[MetricName.EVAL_ROWS] == after[MetricName.EVAL_ROWS]
    assert after[MetricName.EVAL_LOSS_CI_HIGH] < before[MetricName.EVAL_LOSS_CI_LOW]
    assert after[MetricName.EVAL_EXACT_MATCH_CI_LOW] > before[MetricName.EVAL_EXACT_MATCH_CI_HIGH]
    result = done.recorder.messages[-1]
    assert isinstance(result, Result)
    assert 2.0 == result.metrics[MetricName.SHOTS]
    table = json.loads(done.files["demonstrations.json"])
    assert (selection, 2) == (table["selection"], table["shots"])
    assert (20 if selection == "nearest" else 2) == len(table["examples"])


def test_nearest_examples_beat_random_ones_where_questions_differ(bench):
    """Where like questions have like answers, examples near to a question serve it better than random ones."""
    rows = jsonl([row(f"{entity} {ENTITIES[place % 4]}", f"a{place % 4}") for place, entity in enumerate(ENTITIES)])
    done = {
        rule: bench.run(in_context(selection=rule, shots=1), SHARES, training=rows).phases()["after", 0]
        for rule in ("random", "nearest")
    }
    assert done["nearest"][MetricName.EVAL_LOSS] < done["random"][MetricName.EVAL_LOSS]


def test_best_takes_the_draw_with_the_least_loss_on_validation(bench):
    """Where most examples mislead, the best of many draws is one whose examples are right."""
    rows = [row(entity, "a6" if place % 4 == 0 else "a9") for place, entity in enumerate(ENTITIES)]
    asked, held = (jsonl([row(entity, "a6") for entity in part]) for part in (ENTITIES[1:10:3], ENTITIES[2:10:3]))
    done = bench.run(in_context(selection="best", draws=24), training=jsonl(rows), validation=asked, evaluation=held)
    examples = json.loads(done.files["demonstrations.json"])["examples"]
    assert [" a6", " a6"] == [example["completion"] for example in examples]


def test_labels_become_answers(bench):
    """Rows of text and label are shown, and asked, as a text and its label."""
    rows = jsonl([{"text": f"colour {entity}", "label": "a3"} for entity in ENTITIES])
    done = bench.run(in_context(selection="random"), SHARES, training=rows)
    (first, _) = json.loads(done.files["demonstrations.json"])["examples"]
    assert first["prompt"].endswith("\nLabel:")
    assert " a3" == first["completion"]


@pytest.mark.parametrize(
    ("settings", "rows"),
    [({"selection": "random", "shots": 3}, 2), ({"selection": "best", "shots": 1}, 2)],
)
def test_too_few_examples_are_refused(bench, settings, rows):
    """Fewer examples than are to be shown, or no validation rows to choose by, are TOO_FEW_ROWS."""
    content = jsonl([row(entity, "a1") for entity in ENTITIES[:rows]])
    with pytest.raises(TrainerError) as caught:
        bench.run(in_context(**settings), {"validation_fraction": 0.0, "evaluation_fraction": 0.0}, training=content)
    assert FailureCode.TOO_FEW_ROWS == caught.value.code
    assert FailureNumber.ROWS in caught.value.numbers


def test_bad_rows_are_refused_by_number(bench, new_recorder):
    """Rows without an answer, or longer than a prompt may be, are refused with their numbers."""
    recorder = new_recorder()
    rows = jsonl([row("e1", "a1"), {"prompt": "e1"}, row("e1 " * 120, "a1")])
    with pytest.raises(RowsRefused):
        type(bench)(bench.model, bench.scratch, lambda: recorder).run(in_context(selection="random"), training=rows)
    assert ((2, RowReason.MISSING_KEY), (3, RowReason.TOO_LONG)) == recorder.messages[-1].errors


def test_unknown_rules_are_refused(bench):
    """A rule that is none, or more new tokens than a prompt has, are refused."""
    for settings in ({"selection": "worst"}, {"max_new_tokens": 100}):
        with pytest.raises(SpecError):
            bench.run(in_context(**settings), training=ALIKE)
