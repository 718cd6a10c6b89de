# SPDX-License-Identifier: Apache-2.0
"""Whole jobs in this process, on tiny models: equality with a plain script, resume, stops, failures, exports."""

from __future__ import annotations

import errno
import io
import json
import math

import peft
import pytest
import torch
import transformers

from cloister_workers.errors import Cancelled, Paused, RowsRefused, TrainerError
from cloister_workers.messages import (
    DatasetRole,
    EvaluationPhase,
    ExceptionKind,
    Failed,
    FailureCode,
    FailureNumber,
    MetricName,
    Progress,
    RowErrors,
    RowReason,
    Rows,
)
from cloister_workers.trainer.bundle import read_bundle
from cloister_workers.trainer.failures import failure_of
from cloister_workers.trainer.order import batches, data_order
from cloister_workers.trainer.padding import least_padding
from cloister_workers.trainer.spec import parse_spec
from tiny_models import chat_rows, classification_rows
from trainer_jobs import check_resume, run_job

# peft still asks transformers for an attribute under its old name
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
CPU = torch.device("cpu")
LORA = {"lora": {"target_modules": ["query", "value"], "dropout": 0.1}}


def classification_spec(adapter=None, data=None, **settings):
    given = {"batch_size": 8, "max_seq_length": 32, "learning_rate": 0.01, "n_epochs": 2, **settings}
    return parse_spec(
        {
            "model": "tiny",
            "seed": "5",
            "data": data or {},
            "method": {"classification": {"hyperparameters": given}},
            "adapter": adapter or LORA,
        }
    )


def test_losses_equal_a_plain_script(bert_dir, tmp_path, recorder):
    """A plain peft and transformers script with the documented order and settings has the same per-step losses."""
    rows = classification_rows(60)
    spec = classification_spec(data={"validation_fraction": 0.0, "evaluation_fraction": 0.0}, weight_decay=0.01)
    run_job(spec, bert_dir, tmp_path, recorder, rows)

    table = [json.loads(line) for line in rows.splitlines()]
    labels = sorted({row["label"] for row in table})
    tokenizer = transformers.AutoTokenizer.from_pretrained(bert_dir)
    torch.manual_seed(5)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(bert_dir, num_labels=3, dtype=torch.float32)
    config = peft.LoraConfig(
        task_type="SEQ_CLS", r=8, lora_alpha=16, lora_dropout=0.1, target_modules=["query", "value"]
    )
    model = peft.get_peft_model(model, config)
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.01, weight_decay=0.01)
    schedule = transformers.get_linear_schedule_with_warmup(optimiser, math.ceil(16 * 0.1), 16)
    model.train()
    expected = []
    for epoch in range(2):
        for batch in batches(data_order(5, epoch, 60), 8):
            step_loss = 0.0
            texts = [table[i]["text"] for i in batch]
            for group in least_padding([len(ids) for ids in tokenizer(texts)["input_ids"]], 8):
                encoded = tokenizer(
                    [texts[i] for i in group], truncation=True, max_length=32, padding=True, return_tensors="pt"
                )
                encoded.pop("token_type_ids", None)
                true = torch.tensor([labels.index(table[batch[i]]["label"]) for i in group])
                loss = model(**encoded, labels=true).loss * len(group) / len(batch)
                loss.backward()
                step_loss += loss.item()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            optimiser.zero_grad()
            expected.append(step_loss)
    assert 16 == len(expected)
    assert expected == pytest.approx(recorder.losses(), abs=1e-5)


@pytest.mark.parametrize("at", [2, 7])
@pytest.mark.parametrize("adapter", [LORA, {"full": {}}])
def test_resume_is_exact_to_the_bit(bert_dir, tmp_path, new_recorder, adapter, at):
    """Interrupted and resumed training has the very losses and weights of training that never stopped, dropout on."""
    check_resume(classification_spec(adapter), bert_dir, tmp_path, new_recorder, classification_rows(60), at)


@pytest.mark.parametrize("at", [2, 6])
def test_resume_of_a_packed_job_is_exact(llama_dir, tmp_path, new_recorder, at):
    """A supervised job that stops at any step resumes to the same losses and the same result."""
    settings = {"batch_size": 6, "max_seq_length": 48, "n_epochs": 2, "n_evals": 1}
    spec = parse_spec({"model": "tiny", "method": {"supervised": {"hyperparameters": settings}}})
    check_resume(spec, llama_dir, tmp_path, new_recorder, chat_rows(30), at)


def test_resume_from_a_planned_checkpoint_is_exact(llama_dir, tmp_path, new_recorder):
    """A checkpoint that was asked for resumes to the same losses and the same result."""
    settings = {"batch_size": 6, "max_seq_length": 48, "n_epochs": 2, "n_checkpoints": 1, "n_evals": 1}
    spec = parse_spec({"model": "tiny", "method": {"supervised": {"hyperparameters": settings}}})
    rows = chat_rows(30)
    whole = run_job(spec, llama_dir, tmp_path, new_recorder(), rows)
    assert 2 == len(whole.bundles)
    second = run_job(spec, llama_dir, tmp_path, new_recorder(), rows, checkpoint=whole.bundles[0])
    assert whole.losses()[-len(second.losses()) :] == second.losses()
    assert 0 < len(second.losses()) < len(whole.losses())
    assert whole.bundles[1] == second.bundles[0]


def test_foreign_or_damaged_checkpoint_is_refused(bert_dir, tmp_path, new_recorder):
    """A checkpoint of another seed, or with bytes missing, is CHECKPOINT_INVALID."""
    rows = classification_rows(40)
    first = new_recorder(pause_at=1)
    with pytest.raises(Paused):
        run_job(classification_spec(), bert_dir, tmp_path, first, rows)
    for spec, state in (
        (classification_spec(learning_rate=0.02), first.bundles[0]),
        (classification_spec(), first.bundles[0][:700]),
        (classification_spec(), b""),
    ):
        with pytest.raises(TrainerError) as caught:
            run_job(spec, bert_dir, tmp_path, new_recorder(), rows, checkpoint=state)
        assert FailureCode.CHECKPOINT_INVALID == caught.value.code


def test_accumulated_micro_batches_equal_one_batch(bert_dir, tmp_path, new_recorder):
    """Without dropout a step in micro batches has the loss of the step in one piece, a short last one included."""
    no_dropout = tmp_path / "model"
    no_dropout.mkdir()
    for path in bert_dir.iterdir():
        content = path.read_bytes()
        if path.name == "config.json":
            config = json.loads(content)
            content = json.dumps(config | {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}).encode()
        (no_dropout / path.name).write_bytes(content)
    plain = {"lora": {"target_modules": ["query", "value"]}}
    curves = [
        run_job(
            classification_spec(plain, micro_batch_size=size),
            no_dropout,
            tmp_path,
            new_recorder(),
            classification_rows(43),
        ).losses()
        for size in (8, 3)
    ]
    assert curves[0] == pytest.approx(curves[1], abs=1e-5)


def test_cancel_comes_before_the_next_micro_batch(bert_dir, tmp_path, new_recorder):
    """A cancelled job takes no further step and hands nothing over."""
    stopped = new_recorder(cancel_at=3)
    with pytest.raises(Cancelled) as caught:
        run_job(classification_spec(), bert_dir, tmp_path, stopped, classification_rows(60))
    assert 3 == caught.value.step == len(stopped.losses())
    assert [] == stopped.bundles


def test_non_finite_loss_stops_with_its_step(bert_dir, tmp_path, recorder, monkeypatch):
    """A loss that is not finite ends the job with NON_FINITE_LOSS, the step and a row, before weights are touched."""
    monkeypatch.setattr(
        "cloister_workers.trainer.loop.learning_rate", lambda kind, peak, step, *_: math.inf if step == 1 else 0.0
    )
    with pytest.raises(TrainerError) as caught:
        run_job(classification_spec(), bert_dir, tmp_path, recorder, classification_rows(60))
    assert FailureCode.NON_FINITE_LOSS == caught.value.code
    assert {FailureNumber.STEP, FailureNumber.ROW} == caught.value.numbers.keys()
    assert 3 == caught.value.numbers[FailureNumber.STEP]


def test_progress_is_thinned_but_no_loss_is_lost(bert_dir, tmp_path, new_recorder):
    """With a clock of 10 ms steps every tenth step is told, the last always, and all losses arrive."""
    ticks = iter(range(1_000_000))
    told = run_job(
        classification_spec(n_epochs=5, batch_size=4),
        bert_dir,
        tmp_path,
        new_recorder(),
        classification_rows(40),
        clock=lambda: next(ticks) * 0.01,
    )
    progress = [message for message in told.messages if isinstance(message, Progress)]
    assert 40 == progress[-1].step == progress[-1].max_steps == len(told.losses())
    assert len(progress) <= 6
    assert 5.0 == progress[-1].epoch
    assert 0.0 == progress[-1].eta_seconds


def test_rows_are_told_and_held_out_files_are_kept_out(bert_dir, tmp_path, recorder):
    """Rows of a held-out file are not trained on, and every input is counted."""
    rows = classification_rows(42)
    held_out = b"\n".join(rows.splitlines()[:6])
    run_job(classification_spec(max_steps=1), bert_dir, tmp_path, recorder, rows, evaluation=held_out)
    told = {message.dataset: message for message in recorder.messages if isinstance(message, Rows)}
    training, evaluation = told[DatasetRole.TRAINING], told[DatasetRole.EVALUATION]
    assert (42, 6, 6, 3) == (training.total, evaluation.total, evaluation.used, training.labels)
    assert training.used + told[DatasetRole.VALIDATION].used == 36
    assert evaluation.duplicates == 6
    phases = [message for message in recorder.messages if isinstance(message, tuple)]
    measured = {entry[0]: entry[2] for entry in phases if entry[0] in set(EvaluationPhase)}
    assert 6.0 == measured[EvaluationPhase.AFTER][MetricName.EVAL_ROWS]


def test_bad_rows_end_the_job_before_training(bert_dir, tmp_path, recorder):
    """All bad rows are counted, the first hundred listed with reasons, and nothing is trained."""
    bad = [b'{"text": "alpha"}', b"{", b'{"text": 1, "label": "alpha"}', b'{"text": "bravo", "label": null}']
    with pytest.raises(RowsRefused):
        run_job(
            classification_spec(),
            bert_dir,
            tmp_path,
            recorder,
            b"\n".join([classification_rows(2), *bad, *[b"["] * 200]),
        )
    (told,) = [message for message in recorder.messages if isinstance(message, RowErrors)]
    assert (204, 100) == (told.total_errors, len(told.errors))
    assert (
        (3, RowReason.MISSING_KEY),
        (4, RowReason.NOT_JSON),
        (5, RowReason.WRONG_TYPE),
        (6, RowReason.WRONG_TYPE),
    ) == told.errors[:4]
    assert [] == recorder.losses()


@pytest.mark.parametrize(
    ("data", "more", "reason"),
    [
        ({"reject_duplicates": True}, {}, RowReason.DUPLICATE),
        ({}, {"validation": b'{"text": "alpha", "label": "unheard"}'}, RowReason.UNKNOWN_LABEL),
    ],
)
def test_duplicates_and_unknown_labels_are_row_errors(bert_dir, tmp_path, recorder, data, more, reason):
    """Repeats, where they are refused, and labels that training lacks are row errors."""
    rows = classification_rows(9)
    repeated = rows + b"\n" + rows.splitlines()[0]
    with pytest.raises(RowsRefused):
        run_job(classification_spec(data=data), bert_dir, tmp_path, recorder, repeated, **more)
    (told,) = [message for message in recorder.messages if isinstance(message, RowErrors)]
    assert reason == told.errors[0][1]


@pytest.mark.parametrize(
    ("rows", "code"),
    [
        (b'{"text": "alpha", "label": "alpha"}', FailureCode.TOO_FEW_LABELS),
        (b"", FailureCode.TOO_FEW_LABELS),
    ],
)
def test_too_little_data_has_its_code(bert_dir, tmp_path, recorder, rows, code):
    """A set that cannot be learned from fails with a code that says so."""
    with pytest.raises(TrainerError) as caught:
        run_job(classification_spec(), bert_dir, tmp_path, recorder, rows)
    assert code == caught.value.code


@pytest.mark.parametrize("damage", ["cut", "lacking", "no_config"])
def test_damaged_model_is_refused(bert_dir, tmp_path, recorder, damage):
    """Weights cut short, tensors missing or no configuration: MODEL_INVALID, and nothing is filled up at random."""
    from safetensors.torch import load_file, save_file

    broken = tmp_path / "model"
    broken.mkdir()
    for path in bert_dir.iterdir():
        (broken / path.name).write_bytes(path.read_bytes())
    weights = broken / "model.safetensors"
    if damage == "cut":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif damage == "lacking":
        kept = {k: v for k, v in load_file(weights).items() if "layer.1" not in k}
        save_file(kept, weights, metadata={"format": "pt"})
    else:
        (broken / "config.json").unlink()
    with pytest.raises(TrainerError) as caught:
        run_job(classification_spec(), broken, tmp_path, recorder, classification_rows(9))
    assert FailureCode.MODEL_INVALID == caught.value.code


def test_unknown_target_is_refused(bert_dir, tmp_path, recorder):
    """A target module that the model lacks is ADAPTER_INVALID."""
    spec = classification_spec({"lora": {"target_modules": ["q_proj"]}})
    with pytest.raises(TrainerError) as caught:
        run_job(spec, bert_dir, tmp_path, recorder, classification_rows(9))
    assert FailureCode.ADAPTER_INVALID == caught.value.code


def test_export_loads_with_plain_peft_and_leaks_no_path(bert_dir, tmp_path, recorder):
    """Plain peft loads the exported adapter to the evaluated accuracy, and no file holds a path of the worker."""
    rows = classification_rows(60)
    held_out = b"\n".join(rows.splitlines()[:20])
    run_job(classification_spec(n_epochs=1), bert_dir, tmp_path, recorder, rows, evaluation=held_out)
    files = read_bundle(io.BytesIO(recorder.bundles[-1]))
    out = tmp_path / "out"
    out.mkdir()
    for name, content in files.items():
        assert str(bert_dir).encode() not in content
        assert str(tmp_path).encode() not in content
        (out / name).write_bytes(content)
    assert "tiny" == json.loads(files["adapter_config.json"])["base_model_name_or_path"]
    config = transformers.AutoConfig.from_pretrained(out)
    base = transformers.AutoModelForSequenceClassification.from_pretrained(bert_dir, config=config)
    model = peft.PeftModel.from_pretrained(base, out).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(out)
    table = [json.loads(line) for line in held_out.splitlines()]
    encoded = tokenizer([row["text"] for row in table], padding=True, return_tensors="pt")
    encoded.pop("token_type_ids", None)
    with torch.no_grad():
        predicted = model(**encoded).logits.argmax(-1).tolist()
    hits = sum(config.id2label[label] == row["label"] for label, row in zip(predicted, table, strict=True))
    assert hits / 20 == pytest.approx(recorder.messages[-1].metrics[MetricName.EVAL_ACCURACY])


def test_full_export_loads_with_plain_transformers(llama_dir, tmp_path, recorder):
    """A fully fine-tuned model is a plain transformers directory with its chat template."""
    settings = {"batch_size": 4, "max_seq_length": 48, "max_steps": 2}
    spec = parse_spec(
        {"model": "tiny", "method": {"supervised": {"hyperparameters": settings}}, "adapter": {"full": {}}}
    )
    run_job(spec, llama_dir, tmp_path, recorder, chat_rows(12))
    out = tmp_path / "out"
    out.mkdir()
    for name, content in read_bundle(io.BytesIO(recorder.bundles[-1])).items():
        (out / name).write_bytes(content)
    model = transformers.AutoModelForCausalLM.from_pretrained(out)
    before = transformers.AutoModelForCausalLM.from_pretrained(llama_dir)
    assert not torch.equal(before.lm_head.weight, model.lm_head.weight)
    assert transformers.AutoTokenizer.from_pretrained(out).chat_template


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), Failed(code=FailureCode.OUT_OF_MEMORY)),
        (torch.OutOfMemoryError("secret"), Failed(code=FailureCode.OUT_OF_MEMORY)),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: secret"),
            Failed(code=FailureCode.OUT_OF_MEMORY),
        ),
        (OSError(errno.ENOSPC, "secret"), Failed(code=FailureCode.SCRATCH_FULL)),
        (KeyError("secret"), Failed(code=FailureCode.INTERNAL, kind=ExceptionKind.LOOKUP_ERROR)),
        (ModuleNotFoundError("secret"), Failed(code=FailureCode.INTERNAL, kind=ExceptionKind.IMPORT_ERROR)),
    ],
)
def test_failures_are_closed_words(error, expected):
    """Whatever goes wrong leaves as a code and a kind, never as the text of an exception."""
    assert expected == failure_of(error)
