# SPDX-License-Identifier: Apache-2.0
"""Evaluation jobs: base, each layer and the stack on the same rows, with intervals, in a page that keeps to itself."""

from __future__ import annotations

import json

import pytest

from cloister.reports import check_page
from cloister_workers.errors import RowsRefused, SpecError
from cloister_workers.messages import FailureCode, MetricName, Reported, RowReason, SpecField
from cloister_workers.trainer.stack.layers import Stack
from copying_model import ANSWERS, ENTITIES, question
from stack_jobs import jsonl
from tiny_models import classification_rows

COLOURS = {entity: ANSWERS[(place * 7 + 3) % len(ANSWERS)] for place, entity in enumerate(ENTITIES[:24])}
DOCUMENTS = jsonl([{"id": entity, "text": f"{entity} is the colour {colour}"} for entity, colour in COLOURS.items()])
QUESTIONS = jsonl([{"question": question(entity), "answer": colour} for entity, colour in COLOURS.items()])
RETRIEVAL = {"retrieval": {"chunk_tokens": 16, "overlap": 2, "top_k": 1, "max_new_tokens": 4}}
SHOWN = {"in_context": {"selection": "random", "shots": 1, "max_seq_length": 100, "max_new_tokens": 4}}
EVALUATION = {"evaluation": {"task": "supervised", "metrics": "answer", "max_seq_length": 100, "max_new_tokens": 4}}
TRAINING = {"hyperparameters": {"n_epochs": 2, "batch_size": 8, "max_seq_length": 64, "learning_rate": 0.003}}


@pytest.fixture
def layers(bench):
    """An adapter, an index and demonstrations, each made by its own job on those before it."""
    rows = jsonl([{"prompt": f"noise {entity} Answer:", "completion": " a1"} for entity in ENTITIES])
    adapter = bench.run({"supervised": TRAINING}, training=rows).bundle
    index = bench.run(RETRIEVAL, training=DOCUMENTS, layer=adapter).bundle
    kinds = {"layer": adapter, "layer_2": index}
    other = jsonl([{"question": question(entity), "answer": "a5"} for entity in ENTITIES[24:]])
    shown = bench.run(SHOWN, {"evaluation_fraction": 0.2}, training=other, **kinds).bundle
    return {**kinds, "layer_3": shown}


def test_one_table_compares_base_each_layer_and_the_stack(bench, layers, tmp_path):
    """Every line has its intervals, the index is what helps, and the messages say the same as the report."""
    done = bench.run(EVALUATION, evaluation=QUESTIONS, **layers)
    phases = done.phases()
    assert {("before", 0), ("layers", 1), ("layers", 2), ("layers", 3), ("after", 3)} == set(phases)
    base, whole, stacked = phases["before", 0], phases["after", 3], phases["layers", 2]
    assert whole == phases["layers", 3]
    assert stacked[MetricName.EVAL_EXACT_MATCH_CI_LOW] > base[MetricName.EVAL_EXACT_MATCH_CI_HIGH]
    assert stacked[MetricName.EVAL_LOSS_CI_HIGH] < base[MetricName.EVAL_LOSS_CI_LOW]
    report = done.recorder.messages[-1]
    assert isinstance(report, Reported)
    assert (24, whole) == (report.rows, report.metrics)
    for name, content in done.files.items():
        (tmp_path / "report").mkdir(exist_ok=True)
        (tmp_path / "report" / name).write_bytes(content)
    check_page(tmp_path / "report")
    table = json.loads(done.files["report.json"])
    names = ["base", "base + adapter", "base + index", "base + demonstrations", "base + adapter + index"]
    assert [*names, "base + adapter + index + demonstrations"] == [line["name"] for line in table["lines"]]
    for line, metrics in ((0, base), (1, phases["layers", 1]), (4, stacked), (5, whole)):
        cell = table["lines"][line]["metrics"]["eval_loss"]
        assert metrics[MetricName.EVAL_LOSS] == cell["value"]
        assert cell["low"] < cell["value"] < cell["high"]
    page = done.files["report.html"].decode()
    assert all(f'<th scope="row">{name}</th>' in page for name in names)


def test_all_rows_are_measured_where_positions_are_few(bench):
    """Demonstrations that the model has no positions for are left out, so no row is lost to its length."""
    shown = {**SHOWN["in_context"], "shots": 20, "max_seq_length": 4096}
    rows = jsonl([{"question": question(entity), "answer": "a5"} for entity in ENTITIES])
    layer = bench.run({"in_context": shown}, {"evaluation_fraction": 0.2}, training=rows).bundle
    asked = {**EVALUATION["evaluation"], "max_seq_length": 4096}
    phases = bench.run({"evaluation": asked}, evaluation=QUESTIONS, layer=layer).phases()
    assert [(24.0, True)] * 3 == [(m[MetricName.EVAL_ROWS], MetricName.EVAL_LOSS in m) for m in phases.values()]


def test_each_model_is_loaded_once(bench, layers, monkeypatch):
    """Base and version are loaded once each, however many parts of the version are compared."""
    loads = []
    real = Stack.model

    def loading(stack, *rest):
        loads.append(stack.kinds)
        return real(stack, *rest)

    monkeypatch.setattr(Stack, "model", loading)
    bench.run(EVALUATION, evaluation=QUESTIONS, **layers)
    assert 2 == len(loads)


def test_prompts_play_no_part_in_other_tasks(bert_dir, bench, tmp_path, new_recorder):
    """A classifier is measured by its weights alone: an index on them changes nothing, and needs no encoder."""
    tuned = type(bench)(bert_dir, tmp_path, new_recorder, bench.encoder)
    settings = {"n_epochs": 1, "batch_size": 8, "max_seq_length": 32, "learning_rate": 0.02}
    adapter = tuned.run({"classification": {"hyperparameters": settings}}, training=classification_rows(60)).bundle
    index = tuned.run(RETRIEVAL, training=DOCUMENTS, layer=adapter).bundle
    asked = {"evaluation": {"task": "classification", "max_seq_length": 32}}
    alone = type(bench)(bert_dir, tmp_path, new_recorder)
    done = alone.run(asked, evaluation=classification_rows(30), layer=adapter, layer_2=index)
    phases = done.phases()
    assert phases["layers", 1] == phases["layers", 2] == phases["after", 2]
    assert phases["before", 0] != phases["after", 2]


def test_a_classifier_is_asked_for_the_classes_that_it_learnt(bert_dir, bench, tmp_path, new_recorder):
    """Trained weights classify held-out rows better than the base, and a label that they never saw is refused."""
    tuned = type(bench)(bert_dir, tmp_path, new_recorder)
    settings = {"n_epochs": 6, "batch_size": 8, "max_seq_length": 32, "learning_rate": 0.02}
    adapter = tuned.run({"classification": {"hyperparameters": settings}}, training=classification_rows(60)).bundle
    asked = {"evaluation": {"task": "classification", "max_seq_length": 32}}
    done = tuned.run(asked, evaluation=classification_rows(90), layer=adapter)
    before, after = done.phases()["before", 0], done.phases()["after", 1]
    assert after[MetricName.EVAL_ACCURACY_CI_LOW] > before[MetricName.EVAL_ACCURACY_CI_HIGH]
    with pytest.raises(RowsRefused):
        tuned.run(asked, evaluation=b'{"text": "alpha", "label": "unheard"}', layer=adapter)
    with pytest.raises(SpecError) as caught:
        tuned.run(asked, evaluation=classification_rows(9))
    assert SpecField.TASK == caught.value.field


def test_rows_that_do_not_fit_the_task_are_refused(bench, layers, new_recorder):
    """Rows without an answer are refused by number, with and without layers that make prompts."""
    none: dict[str, bytes] = {}
    for given in (none, layers):
        recorder = new_recorder()
        again = type(bench)(bench.model, bench.scratch, lambda told=recorder: told, bench.encoder)
        with pytest.raises(RowsRefused):
            again.run(EVALUATION, evaluation=QUESTIONS + b'{"question": "e1"}\n{"prompt": "e1"}\n', **given)
        assert ((25, RowReason.MISSING_KEY), (26, RowReason.MISSING_KEY)) == recorder.messages[-1].errors


def test_unknown_tasks_and_absent_rows_are_refused(bench):
    """A task that is no training method, and a job without rows, are refused."""
    with pytest.raises(SpecError) as caught:
        bench.run({"evaluation": {"task": "inference"}}, evaluation=QUESTIONS)
    assert SpecField.TASK == caught.value.field
    with pytest.raises(SpecError) as caught:
        bench.run(EVALUATION, training=QUESTIONS)
    assert FailureCode.SPEC_INVALID == caught.value.code
