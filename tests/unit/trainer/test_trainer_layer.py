# SPDX-License-Identifier: Apache-2.0
"""Jobs that start from an adapted version: an adapter that is trained on, and whole weights in the base's place."""

from __future__ import annotations

import io
import json
import os

import peft
import pytest
import torch
import transformers
from safetensors.torch import load, save

from cloister_workers.errors import Paused, RowsRefused, SpecError, TrainerError
from cloister_workers.messages import EvaluationPhase, FailureCode, MetricName, RowErrors, RowReason, SpecField
from cloister_workers.trainer.bundle import read_bundle, write_bundle
from cloister_workers.trainer.spec import parse_spec
from tiny_models import chat_rows, classification_rows
from trainer_jobs import evaluated, run_job

# peft still asks transformers for an attribute under its old name
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
CPU = torch.device("cpu")
ROWS = classification_rows(60)
HELD = b"\n".join(classification_rows(90).splitlines()[60:])
CHATS = chat_rows(40)
LORA = {"rank": 4, "alpha": 8.0, "target_modules": ["query", "value"]}
FULL: dict[str, object] = {"full": {}}


def spec_of(adapter=None, method="classification", model="tiny", **settings):
    given = {"batch_size": 8, "max_seq_length": 48, "learning_rate": 0.02, "n_epochs": 2, **settings}
    return parse_spec(
        {
            "model": model,
            "seed": "5",
            "method": {method: {"hyperparameters": given}},
            "adapter": adapter or {"lora": LORA},
        }
    )


def run(spec, model_dir, scratch, recorder, training=ROWS, **more):
    return run_job(spec, model_dir, scratch, recorder, training, **more)


def files_of(recorder):
    return read_bundle(io.BytesIO(recorder.bundles[-1]))


def unpacked(recorder, folder):
    folder.mkdir()
    for name, content in files_of(recorder).items():
        (folder / name).write_bytes(content)
    return folder


def accuracy(model, folder, rows):
    """Of a model as the plain libraries load it."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model.eval()
    hits = 0
    for row in rows:
        logits = model(**tokenizer(row["text"], return_tensors="pt", return_token_type_ids=False)).logits
        hits += row["label"] == model.config.id2label[int(logits.argmax())]
    return hits / len(rows)


def plain(base, folder):
    """The version as plain peft and transformers load it."""
    if not (folder / "adapter_config.json").exists():
        return transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    config = transformers.AutoConfig.from_pretrained(folder)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        base, num_labels=config.num_labels, id2label=config.id2label, label2id=config.label2id
    )
    return peft.PeftModel.from_pretrained(model, folder)


@pytest.fixture(scope="module")
def adapter_bundle(bert_dir, tmp_path_factory, new_recorder):
    """The bundle of a classification job's adapter, and what it measured at the end."""
    return made_once(bert_dir, tmp_path_factory.mktemp("first"), new_recorder())


@pytest.fixture(scope="module")
def whole_bundle(bert_dir, tmp_path_factory, new_recorder):
    """The same of a job that trained every weight."""
    return made_once(bert_dir, tmp_path_factory.mktemp("whole"), new_recorder(), FULL)


def made_once(bert_dir, scratch, recorder, adapter=None):
    run(spec_of(adapter), bert_dir, scratch, recorder, evaluation=HELD)
    return recorder.bundles[-1], evaluated(recorder, EvaluationPhase.AFTER)


@pytest.mark.parametrize("second", [{"lora": LORA}, FULL])
def test_a_job_goes_on_where_the_adapter_ended(bert_dir, tmp_path, recorder, adapter_bundle, second):
    """What is measured before training is what the version's own job measured at its end."""
    bundle, before = adapter_bundle
    run(spec_of(second), bert_dir, tmp_path, recorder, layer=bundle, evaluation=HELD)
    assert evaluated(recorder, EvaluationPhase.BEFORE) == pytest.approx(before, abs=1e-5)
    assert evaluated(recorder, EvaluationPhase.AFTER) != pytest.approx(before, abs=1e-5)


@pytest.mark.parametrize("second", [{"lora": LORA}, FULL])
def test_a_job_goes_on_where_whole_weights_ended(bert_dir, tmp_path, recorder, whole_bundle, second):
    """Whole weights stand in the base's place, and what comes of them are whole weights again."""
    bundle, before = whole_bundle
    run(spec_of(second), bert_dir, tmp_path, recorder, layer=bundle, evaluation=HELD)
    assert evaluated(recorder, EvaluationPhase.BEFORE) == pytest.approx(before, abs=1e-5)
    assert {"model.safetensors", "config.json"} <= files_of(recorder).keys()
    assert "adapter_config.json" not in files_of(recorder)


@pytest.mark.parametrize("second", [{"lora": LORA}, FULL])
@pytest.mark.parametrize("first", ["adapter_bundle", "whole_bundle"])
def test_the_result_stands_alone_on_the_base(bert_dir, tmp_path, recorder, request, first, second):
    """Plain libraries load the new version without the old one, and it scores what the job reported."""
    bundle, _ = request.getfixturevalue(first)
    run(spec_of(second), bert_dir, tmp_path, recorder, layer=bundle, evaluation=HELD)
    folder = unpacked(recorder, tmp_path / "version")
    rows = [json.loads(line) for line in HELD.splitlines()]
    found = accuracy(plain(bert_dir, folder), folder, rows)
    assert evaluated(recorder, EvaluationPhase.AFTER)[MetricName.EVAL_ACCURACY] == pytest.approx(found)


def test_the_export_names_the_base_and_not_the_version(bert_dir, tmp_path, recorder, adapter_bundle):
    """The adapter's configuration still names the base model, which it needs, whatever the spec calls the version."""
    run(spec_of(model="a-version"), bert_dir, tmp_path, recorder, layer=adapter_bundle[0])
    assert "tiny" == json.loads(files_of(recorder)["adapter_config.json"])["base_model_name_or_path"]


def test_classes_are_those_of_the_version(bert_dir, tmp_path, recorder, adapter_bundle):
    """Rows of two of the three classes train on; the third stays a class of the result."""
    some = b"\n".join(line for line in ROWS.splitlines() if b'"label": "alpha"' not in line)
    run(spec_of(), bert_dir, tmp_path, recorder, some, layer=adapter_bundle[0])
    assert {"0": "alpha", "1": "bravo", "2": "charlie"} == json.loads(files_of(recorder)["config.json"])["id2label"]


def test_a_class_that_the_version_does_not_have_is_a_bad_row(bert_dir, tmp_path, recorder, adapter_bundle):
    """A new label is refused by its row number before anything is trained."""
    rows = ROWS + b'\n{"text": "golf", "label": "golf"}'
    with pytest.raises(RowsRefused):
        run(spec_of(), bert_dir, tmp_path, recorder, rows, layer=adapter_bundle[0])
    told = next(message for message in recorder.messages if isinstance(message, RowErrors))
    assert ((61, RowReason.UNKNOWN_LABEL),) == told.errors


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"rank": 8}, SpecField.RANK),
        ({"alpha": 16.0}, SpecField.ALPHA),
        ({"rslora": True}, SpecField.RSLORA),
        ({"dora": True}, SpecField.DORA),
        ({"target_modules": ["query"]}, SpecField.TARGET_MODULES),
    ],
)
def test_another_shape_than_the_adapters_is_refused(bert_dir, tmp_path, recorder, adapter_bundle, change, field):
    """A specification that says another rank, scale, kind or place than the adapter has is not run."""
    with pytest.raises(SpecError) as refused:
        run(spec_of({"lora": LORA | change}), bert_dir, tmp_path, recorder, layer=adapter_bundle[0])
    assert (FailureCode.ADAPTER_INVALID, field) == (refused.value.code, refused.value.field)


def test_places_that_are_left_open_are_the_adapters(bert_dir, tmp_path, recorder, adapter_bundle):
    """A specification without target modules takes those that the adapter has."""
    run(spec_of({"lora": {"rank": 4, "alpha": 8.0}}), bert_dir, tmp_path, recorder, layer=adapter_bundle[0])
    assert ["query", "value"] == sorted(json.loads(files_of(recorder)["adapter_config.json"])["target_modules"])


def test_an_adapter_for_another_method_is_refused(bert_dir, llama_dir, tmp_path, recorder, adapter_bundle):
    """A classifier's adapter is no start for a language model, and the failure names the method."""
    with pytest.raises(SpecError) as refused:
        run(spec_of(method="supervised"), llama_dir, tmp_path, recorder, CHATS, layer=adapter_bundle[0])
    assert (FailureCode.ADAPTER_INVALID, SpecField.METHOD) == (refused.value.code, refused.value.field)


def test_a_language_models_adapter_is_trained_on(llama_dir, tmp_path, new_recorder):
    """A supervised job on a supervised version starts at the loss at which that ended."""
    spec = spec_of({"lora": {"rank": 2, "alpha": 4.0}}, "supervised")
    first = run(spec, llama_dir, tmp_path, new_recorder(), CHATS)
    second = run(spec, llama_dir, tmp_path, new_recorder(), CHATS, layer=first.bundles[-1])
    ended = evaluated(first, EvaluationPhase.AFTER)
    assert evaluated(second, EvaluationPhase.BEFORE) == pytest.approx(ended, abs=1e-5)
    assert evaluated(second, EvaluationPhase.AFTER)[MetricName.EVAL_LOSS] < ended[MetricName.EVAL_LOSS]


def test_resume_on_a_version_is_exact_to_the_bit(bert_dir, tmp_path, new_recorder, adapter_bundle):
    """An interrupted job on a version gives the bytes of one that never stopped, dropout on."""
    spec, layer = spec_of({"lora": {**LORA, "dropout": 0.1}}), adapter_bundle[0]
    whole = run(spec, bert_dir, tmp_path, new_recorder(), layer=layer)
    first = new_recorder(pause_at=4)
    with pytest.raises(Paused):
        run(spec, bert_dir, tmp_path, first, layer=layer)
    second = run(spec, bert_dir, tmp_path, new_recorder(), layer=layer, checkpoint=first.bundles[0])
    assert whole.bundles[-1] == second.bundles[-1]


def bundle_of(files):
    with os.fdopen(write_bundle(files), "rb") as stream:
        return stream.read()


def without_head(files):
    """The adapter without its trained head."""
    config = json.loads(files["adapter_config.json"]) | {"modules_to_save": None}
    kept = {k: v for k, v in load(files["adapter_model.safetensors"]).items() if "classifier" not in k}
    return files | {"adapter_config.json": json.dumps(config).encode(), "adapter_model.safetensors": save(kept)}


@pytest.mark.parametrize(
    "damage",
    [
        lambda files: bundle_of(files)[:1000],
        lambda files: bundle_of({"rows.json": b"{}"}),
        lambda files: bundle_of(files | {"config.json": b"[]"}),
        lambda files: bundle_of(files | {"adapter_model.safetensors": b"\0" * 100}),
        lambda files: bundle_of(
            files | {"adapter_model.safetensors": save({"base_model.model.x": torch.zeros(1)})},
        ),
        lambda files: bundle_of(without_head(files)),
    ],
    ids=["cut", "no version", "no configuration", "no tensors", "other tensors", "no head"],
)
def test_a_damaged_version_is_refused(bert_dir, tmp_path, recorder, adapter_bundle, damage):
    """A layer that lacks what it needs fails the job, and never trains on random numbers in its place."""
    bundle = damage(read_bundle(io.BytesIO(adapter_bundle[0])))
    with pytest.raises(TrainerError) as refused:
        run(spec_of(), bert_dir, tmp_path, recorder, layer=bundle)
    assert FailureCode.MODEL_INVALID is refused.value.code
