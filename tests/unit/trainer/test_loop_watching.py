# SPDX-License-Identifier: Apache-2.0
"""What the loop watches: the best evaluation, patience, memory, rows that go wrong; and what a job replays."""

from __future__ import annotations

import io
import json
import math
from dataclasses import replace

import pytest
import torch
import transformers

from cloister_workers.errors import Paused, SpecError, TrainerError
from cloister_workers.messages import (
    DatasetRole,
    EvaluationPhase,
    FailureCode,
    FailureNumber,
    MetricName,
    OddRows,
    Progress,
    Result,
    Rows,
)
from cloister_workers.trainer.adapt import attach_new
from cloister_workers.trainer.bundle import read_bundle
from cloister_workers.trainer.model import load_classifier
from cloister_workers.trainer.objectives.classification import Classification
from cloister_workers.trainer.objectives.multi_label import MultiLabel
from cloister_workers.trainer.spec import Head, parse_spec
from tiny_models import WORDS, classification_rows
from trainer_jobs import run_job

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
CPU = torch.device("cpu")
LORA = {"lora": {"target_modules": ["query", "value"], "dropout": 0.1}}


def spec_of(adapter=None, data=None, **settings):
    given = {"batch_size": 8, "micro_batch_size": 8, "max_seq_length": 32, "learning_rate": 0.01, "n_epochs": 2}
    table = {"model": "tiny", "seed": "5", "data": data or {}, "adapter": adapter or LORA}
    return parse_spec({**table, "method": {"classification": {"hyperparameters": {**given, **settings}}}})


def evaluated(recorder, phase):
    return [entry[2] for entry in recorder.messages if isinstance(entry, tuple) and entry[0] is phase]


def result(recorder):
    return next(message for message in recorder.messages if isinstance(message, Result))


# ---------------------------------------------------------------- best evaluation and patience
HIGH = {"learning_rate": 0.9, "lr_scheduler_type": "constant", "n_epochs": 6, "n_evals": 6, "max_grad_norm": 0.0}
"""Settings under which training gets worse."""


def test_the_best_evaluation_is_what_is_kept(bert_dir, tmp_path, new_recorder):
    """With keep_best the result has the weights of the lowest validation loss, though training went on to worse."""
    held = classification_rows(30)
    kept = run_job(
        spec_of(keep_best=True, **HIGH), bert_dir, tmp_path, new_recorder(), classification_rows(90), validation=held
    )
    during = [metrics[MetricName.EVAL_LOSS] for metrics in evaluated(kept, EvaluationPhase.DURING)]
    assert min(during) < during[-1]
    again = run_job(
        spec_of(**HIGH, max_steps=1), bert_dir, tmp_path, new_recorder(), classification_rows(90),
        validation=classification_rows(3), evaluation=held, layer=kept.bundles[-1],
    )  # fmt: skip
    assert evaluated(again, EvaluationPhase.BEFORE)[0][MetricName.EVAL_LOSS] == pytest.approx(min(during), abs=1e-5)


def test_patience_ends_training_and_progress_is_whole(bert_dir, tmp_path, recorder):
    """After so many evaluations without a lower loss training ends, and the last progress says that all is done."""
    spec = spec_of(early_stop_patience=2, **{**HIGH, "n_epochs": 20, "n_evals": 20})
    run_job(spec, bert_dir, tmp_path, recorder, classification_rows(90), validation=classification_rows(30))
    losses = [metrics[MetricName.EVAL_LOSS] for metrics in evaluated(recorder, EvaluationPhase.DURING)]
    best = losses.index(min(losses))
    assert 20 * 12 > result(recorder).step
    assert len(losses) - 1 == best + 2
    last = [message for message in recorder.messages if isinstance(message, Progress)][-1]
    assert (result(recorder).step, result(recorder).step, 0.0) == (last.step, last.max_steps, last.eta_seconds)


@pytest.mark.parametrize("pause_at", [5, 17])
def test_what_is_best_survives_a_resume(bert_dir, tmp_path, new_recorder, pause_at):
    """Interrupted and resumed training keeps the very same weights as best."""
    spec, rows, held = spec_of(keep_best=True, **HIGH), classification_rows(60), classification_rows(30)
    whole = run_job(spec, bert_dir, tmp_path, new_recorder(), rows, validation=held)
    first = new_recorder(pause_at=pause_at)
    with pytest.raises(Paused):
        run_job(spec, bert_dir, tmp_path, first, rows, validation=held)
    second = run_job(spec, bert_dir, tmp_path, new_recorder(), rows, validation=held, checkpoint=first.bundles[-1])
    assert whole.losses() == first.losses() + second.losses()
    assert whole.bundles[-1] == second.bundles[-1]


# ---------------------------------------------------------------- memory
def short_of_memory(monkeypatch, limit, objective=Classification):
    """A device on which more than `limit` examples at once do not fit."""
    real = objective.outcome

    def outcome(self, model, examples):
        if len(examples) > limit:
            raise torch.OutOfMemoryError("no room")
        return real(self, model, examples)

    monkeypatch.setattr(objective, "outcome", outcome)


def test_the_micro_batch_is_what_memory_takes(bert_dir, tmp_path, new_recorder, monkeypatch):
    """Left to the host, it is halved until a step fits, is said in the result, and trains as if it had been given."""
    short_of_memory(monkeypatch, 3)
    rows = classification_rows(60)
    found = run_job(spec_of(micro_batch_size=0), bert_dir, tmp_path, new_recorder(), rows)
    assert 2.0 == result(found).metrics[MetricName.MICRO_BATCH_SIZE]
    given = run_job(spec_of(micro_batch_size=2), bert_dir, tmp_path, new_recorder(), rows)
    assert given.losses() == found.losses()


def test_several_labels_find_theirs_too(bert_dir, tmp_path, recorder, monkeypatch):
    """Objectives other than the common one are cut smaller as well."""
    short_of_memory(monkeypatch, 3, MultiLabel)
    rows = b"".join(b'{"text": "%s", "labels": ["a"]}\n' % word.encode() for word in WORDS[:40])
    spec = spec_of(micro_batch_size=0)
    spec = replace(spec, settings={**spec.settings, "problem_type": "multi_label"})
    assert 2.0 == result(run_job(spec, bert_dir, tmp_path, recorder, rows)).metrics[MetricName.MICRO_BATCH_SIZE]


def test_a_resumed_job_keeps_the_micro_batch_of_its_first_host(bert_dir, tmp_path, new_recorder, monkeypatch):
    """A host with more memory goes on with the micro batch that the checkpoint brings, to the same losses."""
    rows, spec = classification_rows(60), spec_of(micro_batch_size=0)
    with monkeypatch.context() as small:
        short_of_memory(small, 3)
        whole = run_job(spec, bert_dir, tmp_path, new_recorder(), rows)
        first = new_recorder(pause_at=4)
        with pytest.raises(Paused):
            run_job(spec, bert_dir, tmp_path, first, rows)
    second = run_job(spec, bert_dir, tmp_path, new_recorder(), rows, checkpoint=first.bundles[-1])
    assert whole.losses() == first.losses() + second.losses()
    assert 2.0 == result(second).metrics[MetricName.MICRO_BATCH_SIZE]


def test_no_room_for_one_example_is_said(bert_dir, tmp_path, recorder, monkeypatch):
    """Where not even one example fits, the error of memory comes through."""
    short_of_memory(monkeypatch, 0)
    with pytest.raises(torch.OutOfMemoryError):
        run_job(spec_of(micro_batch_size=0), bert_dir, tmp_path, recorder, classification_rows(60))


# ---------------------------------------------------------------- rows that go wrong
def test_no_number_points_at_its_row(bert_dir, tmp_path, recorder, monkeypatch):
    """A row whose loss is no number ends the job, which names the step and the row's number in the file."""
    real = Classification.outcome

    def outcome(self, model, examples):
        found = real(self, model, examples)
        poisoned = torch.tensor([math.nan if e.row == 18 and torch.is_grad_enabled() else 1.0 for e in examples])
        return type(found)(found.sums * poisoned, found.predicted)

    monkeypatch.setattr(Classification, "outcome", outcome)
    whole = {"validation_fraction": 0.0, "evaluation_fraction": 0.0}
    with pytest.raises(TrainerError) as caught:
        run_job(spec_of(data=whole), bert_dir, tmp_path, recorder, classification_rows(40))
    assert FailureCode.NON_FINITE_LOSS == caught.value.code
    assert 18 == caught.value.numbers[FailureNumber.ROW]
    told = [message for message in recorder.messages if isinstance(message, OddRows)]
    assert [(DatasetRole.TRAINING, caught.value.numbers[FailureNumber.STEP], (18,))] == [
        (message.dataset, message.step, message.rows) for message in told
    ]


# ---------------------------------------------------------------- replay
def other_rows(count):
    """Another task of the same labels: the label is the last word."""
    lines = []
    for number in range(count):
        words = [WORDS[(number * step + 3) % 10] for step in range(1, 3 + number % 5)]
        lines.append(
            json.dumps(
                {"text": " ".join([*words, WORDS[number // 3 % 10], WORDS[number % 3]]), "label": WORDS[number % 3]}
            )
        )
    return "\n".join(lines).encode()


def test_replay_rows_make_up_their_share(bert_dir, tmp_path, recorder):
    """Replayed examples are the share of the training examples that was asked for, and held-out ones are measured."""
    data = {"validation_fraction": 0.0, "evaluation_fraction": 0.2, "replay_ratio": 0.25}
    run_job(spec_of(data=data), bert_dir, tmp_path, recorder, classification_rows(75), replay=other_rows(60))
    used = {message.dataset: message.used for message in recorder.messages if isinstance(message, Rows)}
    assert used[DatasetRole.REPLAY] / (used[DatasetRole.REPLAY] + used[DatasetRole.TRAINING]) == pytest.approx(
        0.25, abs=0.02
    )
    before, after = (evaluated(recorder, phase)[0] for phase in (EvaluationPhase.BEFORE, EvaluationPhase.AFTER))
    assert 12.0 == before[MetricName.REPLAY_ROWS]
    forgotten = after[MetricName.REPLAY_LOSS] - before[MetricName.REPLAY_LOSS]
    assert forgotten == result(recorder).metrics[MetricName.FORGETTING]


def test_replay_holds_on_to_what_was_learnt(bert_dir, tmp_path, new_recorder):
    """A version that goes on with new rows forgets less of its old ones where they are replayed."""
    old, new = classification_rows(90), other_rows(90)
    whole = {"validation_fraction": 0.0, "evaluation_fraction": 0.2}
    first = run_job(spec_of(data=whole, n_epochs=8), bert_dir, tmp_path, new_recorder(), old)

    def forgetting(ratio):
        data = {**whole, "replay_ratio": ratio}
        spec = spec_of(data=data, n_epochs=8, learning_rate=0.02)
        told = run_job(spec, bert_dir, tmp_path, new_recorder(), new, replay=old, layer=first.bundles[-1])
        return result(told).metrics[MetricName.FORGETTING]

    assert forgetting(0.5) < forgetting(0.0)


# ---------------------------------------------------------------- what is trained
@pytest.mark.parametrize("kind", [{"rslora": True}, {"dora": True}])
def test_kinds_of_low_rank_adapters_learn(bert_dir, tmp_path, recorder, kind):
    """rsLoRA and DoRA lower the held-out loss, and their exports say what they are."""
    adapter = {"lora": {"target_modules": ["query", "value"], **kind}}
    run_job(spec_of(adapter, n_epochs=8), bert_dir, tmp_path, recorder, classification_rows(90))
    before, after = (evaluated(recorder, phase)[0] for phase in (EvaluationPhase.BEFORE, EvaluationPhase.AFTER))
    assert after[MetricName.EVAL_LOSS] < before[MetricName.EVAL_LOSS]
    config = json.loads(read_bundle(io.BytesIO(recorder.bundles[-1]))["adapter_config.json"])
    assert (kind.get("rslora", False), kind.get("dora", False)) == (config["use_rslora"], config["use_dora"])


def test_a_merged_adapter_is_whole_weights(bert_dir, tmp_path, recorder):
    """With merge the export is a whole model that plain transformers loads and that says what the adapted one said."""
    adapter = {"lora": {"target_modules": ["query", "value"], "merge": True}}
    run_job(spec_of(adapter), bert_dir, tmp_path, recorder, classification_rows(60))
    files = read_bundle(io.BytesIO(recorder.bundles[-1]))
    assert "adapter_config.json" not in files
    folder = tmp_path / "merged"
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    loaded = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    assert 3 == loaded.num_labels


def test_the_head_alone_is_trained(bert_dir, tmp_path, new_recorder):
    """With head the encoder stays as it was, the head learns, and a version of it is trained on."""
    from safetensors.torch import load, load_file

    first = run_job(spec_of({"head": {}}, n_epochs=4), bert_dir, tmp_path, new_recorder(), classification_rows(90))
    before, after = (evaluated(first, phase)[0] for phase in (EvaluationPhase.BEFORE, EvaluationPhase.AFTER))
    assert after[MetricName.EVAL_LOSS] < before[MetricName.EVAL_LOSS]
    exported = load(read_bundle(io.BytesIO(first.bundles[-1]))["model.safetensors"])
    base = load_file(bert_dir / "model.safetensors")
    encoder = {name for name in base if "pooler" not in name}
    assert [] == [name for name in encoder if not torch.equal(base[name], exported[f"bert.{name}"])]
    second = run_job(
        spec_of({"head": {}}), bert_dir, tmp_path, new_recorder(), classification_rows(90), layer=first.bundles[-1]
    )
    assert evaluated(second, EvaluationPhase.BEFORE)[0][MetricName.EVAL_LOSS] < before[MetricName.EVAL_LOSS]


def test_a_pooler_that_the_base_lacks_is_trained_with_the_head(bert_dir, tmp_path):
    """What would stay at random numbers is trained whole, inside the backbone too."""
    folder = tmp_path / "headless"
    transformers.AutoModelForMaskedLM.from_pretrained(bert_dir).save_pretrained(folder)
    base = load_classifier(str(folder), ["a", "b"], 0, CPU)
    assert ("classifier", "pooler") == base.fresh
    model = attach_new(base, Head())
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert {"classifier.weight", "classifier.bias", "bert.pooler.dense.weight", "bert.pooler.dense.bias"} == trained


@pytest.mark.parametrize("settings", [{"keep_best": True}, {"early_stop_patience": 2}])
def test_what_goes_by_validation_rows_needs_them(bert_dir, tmp_path, recorder, settings):
    """Without validation rows, keeping the best and stopping early are refused before training, by name."""
    spec = spec_of(data={"validation_fraction": 0}, n_evals=2, **settings)
    with pytest.raises(SpecError) as caught:
        run_job(spec, bert_dir, tmp_path, recorder, classification_rows(60))
    assert next(iter(settings)) == caught.value.field
    assert [] == recorder.losses()


def test_four_bits_need_their_library(bert_dir, tmp_path, recorder):
    """On a host without bitsandbytes a 4-bit base is refused by name, before anything is trained."""
    with pytest.raises(TrainerError) as caught:
        run_job(spec_of({"lora": {"quantization": "nf4"}}), bert_dir, tmp_path, recorder, classification_rows(60))
    assert FailureCode.LIBRARY_MISSING == caught.value.code
    assert [] == recorder.losses()


def test_four_bits_cannot_be_merged():
    """A specification that wants whole weights of a 4-bit base is refused."""
    with pytest.raises(SpecError):
        spec_of({"lora": {"quantization": "nf4", "merge": True}})
