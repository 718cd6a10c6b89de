# SPDX-License-Identifier: Apache-2.0
"""Whole jobs of preference learning and of reward models in this process, on tiny models."""

from __future__ import annotations

import io
import json
import random

import peft
import pytest
import torch
import transformers

from cloister_workers.errors import Paused, RowsRefused, SpecError, TrainerError
from cloister_workers.messages import EvaluationPhase, FailureCode, MetricName, RowErrors, RowReason
from cloister_workers.trainer.bundle import read_bundle
from cloister_workers.trainer.debias.subjects.folders import write_folder
from cloister_workers.trainer.spec import parse_spec
from tiny_models import WORDS
from trainer_jobs import evaluated, run_job

# peft still asks transformers for an attribute under its old name
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
CPU = torch.device("cpu")
LORA = {"lora": {"rank": 4, "target_modules": ["all-linear"]}}
LOSSES = ["dpo", "ipo", "orpo", "simpo", "kto"]
BETAS = {"dpo": 0.3, "ipo": 0.3, "orpo": 1.0, "simpo": 2.0, "kto": 0.3}


def pairs(count, *, chat=False):
    """The better answer names the colours golf and hotel, the worse one others; prompts are all different."""
    draw = random.Random(4)

    def side(role, text):
        return [{"role": role, "content": text}] if chat else text

    made = []
    for _ in range(count):
        prompt = side("user", " ".join(draw.choices(WORDS[:10], k=draw.randint(2, 6))))
        better = side("assistant", " " + " ".join(draw.choices(["golf", "hotel"], k=draw.randint(1, 3))))
        worse = side("assistant", " " + " ".join(draw.choices(["india", "echo", "delta"], k=draw.randint(1, 4))))
        made.append({"prompt": prompt, "chosen": better, "rejected": worse})
    return made


def rows_for(loss, count=80, *, chat=False):
    found = pairs(count, chat=chat)
    if loss == "kto":
        found = [
            {
                "prompt": row["prompt"],
                "completion": row["chosen" if place % 2 else "rejected"],
                "label": bool(place % 2),
            }
            for place, row in enumerate(found)
        ]
    return b"\n".join(json.dumps(row).encode() for row in found)


def spec_of(method="preference", own=None, adapter=None, data=None, **hyperparameters):
    given = {"learning_rate": 0.01, "n_epochs": 3, "batch_size": 8, "micro_batch_size": 4, "max_seq_length": 24}
    return parse_spec(
        {
            "model": "tiny",
            "seed": "5",
            "data": data or {"validation_fraction": 0.1, "evaluation_fraction": 0.3},
            "method": {method: {"hyperparameters": {**given, **hyperparameters}, **(own or {})}},
            "adapter": adapter or LORA,
        }
    )


def assert_prefers(recorder):
    before, after = evaluated(recorder, EvaluationPhase.BEFORE), evaluated(recorder, EvaluationPhase.AFTER)
    assert before[MetricName.EVAL_ACCURACY_CI_HIGH] < after[MetricName.EVAL_ACCURACY_CI_LOW]
    assert after[MetricName.EVAL_LOSS] < before[MetricName.EVAL_LOSS]
    assert before[MetricName.EVAL_MARGIN] < after[MetricName.EVAL_MARGIN]
    return before, after


@pytest.mark.parametrize("loss", LOSSES)
def test_a_job_learns_what_is_preferred(llama_dir, tmp_path, recorder, loss):
    """On held-out prompts the model comes to prefer the better answers, by each loss, with clear intervals."""
    run_job(spec_of(own={"loss": loss, "beta": BETAS[loss]}), llama_dir, tmp_path, recorder, rows_for(loss))
    before, _ = assert_prefers(recorder)
    if loss in ("dpo", "ipo", "kto"):
        assert 0.5 == before[MetricName.EVAL_ACCURACY]  # a model is no better than itself


@pytest.mark.parametrize("loss", ["dpo", "kto"])
def test_chats_are_preferred_too(llama_dir, tmp_path, recorder, loss):
    """Lists of messages are compared as texts are."""
    run_job(spec_of(own={"loss": loss}), llama_dir, tmp_path, recorder, rows_for(loss, chat=True))
    assert_prefers(recorder)


@pytest.mark.parametrize("kill", random.Random(20).sample(range(1, 18), 2))
@pytest.mark.parametrize("loss", ["dpo", "orpo", "kto"])
def test_resume_is_exact_to_the_bit(llama_dir, tmp_path, new_recorder, loss, kill):
    """A job that is killed and resumed has the very losses and weights of one that never stopped, dropout on: the
    reference is computed anew, from the model as the job found it.
    """
    adapter = {"lora": {"rank": 4, "target_modules": ["q_proj", "v_proj"], "dropout": 0.1}}
    own = {"loss": loss, "beta": BETAS[loss], "sft": 0.1}
    spec, rows = spec_of(own=own, adapter=adapter, n_evals=1), rows_for(loss)
    whole = run_job(spec, llama_dir, tmp_path, new_recorder(), rows)
    first = new_recorder(pause_at=kill)
    with pytest.raises(Paused):
        run_job(spec, llama_dir, tmp_path, first, rows)
    second = run_job(spec, llama_dir, tmp_path, new_recorder(), rows, checkpoint=first.bundles[0])
    assert kill == len(first.losses())
    assert whole.losses() == first.losses() + second.losses()
    assert whole.bundles[-1] == second.bundles[-1]
    assert whole.messages[-1] == second.messages[-1]


def test_smoothed_labels_hold_back(llama_dir, tmp_path, new_recorder):
    """With label_smoothing the margin on held-out pairs grows less."""
    plain = run_job(spec_of(own={"beta": 1.0}), llama_dir, tmp_path, new_recorder(), rows_for("dpo"))
    own = {"beta": 1.0, "label_smoothing": 0.4}
    smooth = run_job(spec_of(own=own), llama_dir, tmp_path, new_recorder(), rows_for("dpo"))
    margin = MetricName.EVAL_MARGIN
    assert 0 < evaluated(smooth, EvaluationPhase.AFTER)[margin] < 0.5 * evaluated(plain, EvaluationPhase.AFTER)[margin]


@pytest.mark.parametrize(
    ("loss", "row", "reason"),
    [
        ("dpo", {"prompt": "alpha", "chosen": " echo", "rejected": " echo"}, RowReason.NOTHING_PREFERRED),
        ("dpo", {"prompt": "alpha", "chosen": " echo"}, RowReason.MISSING_KEY),
        ("simpo", {"prompt": "alpha", "chosen": " echo " * 30, "rejected": " golf"}, RowReason.TOO_LONG),
        ("orpo", {"prompt": "alpha", "chosen": [], "rejected": " golf"}, RowReason.WRONG_TYPE),
        ("kto", {"prompt": "alpha", "completion": " golf"}, RowReason.MISSING_KEY),
        ("kto", {"prompt": "alpha", "completion": " golf", "label": 1}, RowReason.WRONG_TYPE),
        ("kto", {"prompt": "alpha", "completion": "", "label": True}, RowReason.EMPTY_TEXT),
    ],
)
def test_unusable_rows_are_refused_by_number(llama_dir, tmp_path, recorder, loss, row, reason):
    """A row that compares nothing is refused with its number and reason before anything is trained."""
    good = rows_for(loss, 3).splitlines()
    with pytest.raises(RowsRefused):
        run_job(
            spec_of(own={"loss": loss}), llama_dir, tmp_path, recorder, b"\n".join([*good, json.dumps(row).encode()])
        )
    [told] = [message for message in recorder.messages if isinstance(message, RowErrors)]
    assert ((4, reason),) == told.errors


@pytest.mark.parametrize(
    ("own", "data"),
    [
        ({"loss": "ppo"}, {}),
        ({"beta": 0.0}, {}),
        ({"loss": "ipo", "label_smoothing": 0.1}, {}),
        ({}, {"too_long": "truncate"}),
    ],
)
def test_settings_that_do_not_fit_are_refused(llama_dir, tmp_path, recorder, own, data):
    """An unknown loss, a weight out of range, a setting of another loss, and cutting what is compared."""
    with pytest.raises(SpecError):
        run_job(spec_of(own=own, data=data), llama_dir, tmp_path, recorder, rows_for("dpo"))
    assert [] == recorder.bundles


def test_an_encoder_is_refused(bert_dir, tmp_path, recorder):
    """A model that continues no text is refused before anything is trained."""
    with pytest.raises(TrainerError) as caught:
        run_job(spec_of(), bert_dir, tmp_path, recorder, rows_for("dpo"))
    assert FailureCode.MODEL_INVALID == caught.value.code


# ---------------------------------------------------------------- reward models
ADAPTERS = {"causal": LORA, "encoder": {"lora": {"rank": 4, "target_modules": ["query", "value"]}}}


@pytest.fixture
def folders(llama_dir, bert_dir):
    return {"causal": llama_dir, "encoder": bert_dir}


@pytest.mark.parametrize("kind", ["causal", "encoder"])
def test_a_reward_model_tells_better_answers(folders, tmp_path, recorder, kind):
    """Held-out pairs are ordered rightly, and plain transformers and peft score as the job did."""
    run_job(spec_of("reward", adapter=ADAPTERS[kind]), folders[kind], tmp_path, recorder, rows_for("dpo"))
    before, after = evaluated(recorder, EvaluationPhase.BEFORE), evaluated(recorder, EvaluationPhase.AFTER)
    assert before[MetricName.EVAL_ACCURACY_CI_HIGH] < after[MetricName.EVAL_ACCURACY_CI_LOW]
    assert after[MetricName.EVAL_MARGIN] > before[MetricName.EVAL_MARGIN]

    folder = write_folder(read_bundle(io.BytesIO(recorder.bundles[-1])), str(tmp_path / "result"))
    config = transformers.AutoConfig.from_pretrained(folder)
    assert (1, {0: "reward"}) == (config.num_labels, config.id2label)
    base = transformers.AutoModelForSequenceClassification.from_pretrained(folders[kind], num_labels=1)
    base.config.pad_token_id = config.pad_token_id
    model = peft.PeftModel.from_pretrained(base, folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    texts = [row["prompt"] + row[key] + tokenizer.eos_token for row in pairs(5) for key in ("chosen", "rejected")]
    encoded = tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        scores = model(input_ids=encoded["input_ids"], attention_mask=encoded["attention_mask"]).logits.view(5, 2)
    assert bool((scores[:, 0] > scores[:, 1]).all())


@pytest.mark.parametrize("kind", ["causal", "encoder"])
@pytest.mark.parametrize("kill", random.Random(21).sample(range(1, 18), 2))
def test_resume_of_a_reward_model_is_exact(folders, tmp_path, new_recorder, kind, kill):
    """Killed and resumed, a reward model has the very losses and weights of one that never stopped."""
    spec, rows = spec_of("reward", adapter=ADAPTERS[kind]), rows_for("dpo")
    whole = run_job(spec, folders[kind], tmp_path, new_recorder(), rows)
    first = new_recorder(pause_at=kill)
    with pytest.raises(Paused):
        run_job(spec, folders[kind], tmp_path, first, rows)
    second = run_job(spec, folders[kind], tmp_path, new_recorder(), rows, checkpoint=first.bundles[0])
    assert whole.losses() == first.losses() + second.losses()
    assert whole.bundles[-1] == second.bundles[-1]


@pytest.mark.parametrize("adapter", [ADAPTERS["encoder"], {"full": {}}, {"head": {}}])
def test_a_reward_model_is_trained_on(bert_dir, tmp_path, new_recorder, adapter):
    """A job that starts from a reward model begins where that one ended, whatever part of it is trained."""
    spec, rows = spec_of("reward", adapter=adapter, learning_rate=0.002), rows_for("dpo")
    first = run_job(spec, bert_dir, tmp_path, new_recorder(), rows)
    second = run_job(spec, bert_dir, tmp_path, new_recorder(), rows, layer=first.bundles[-1])
    ended, begun = evaluated(first, EvaluationPhase.AFTER), evaluated(second, EvaluationPhase.BEFORE)
    assert ended[MetricName.EVAL_LOSS] == pytest.approx(begun[MetricName.EVAL_LOSS], abs=1e-6)
    assert evaluated(second, EvaluationPhase.AFTER)[MetricName.EVAL_LOSS] < begun[MetricName.EVAL_LOSS]


def test_a_classifier_is_no_reward_model(bert_dir, tmp_path, new_recorder):
    """A version with classes is refused as the start of a reward model."""
    texts = b"\n".join(json.dumps({"text": word, "label": word}).encode() for word in WORDS[:3] * 4)
    plain = {"validation_fraction": 0.0, "evaluation_fraction": 0.0}
    made = run_job(
        spec_of("classification", data=plain, adapter={"full": {}}), bert_dir, tmp_path, new_recorder(), texts
    )
    with pytest.raises(SpecError):
        run_job(spec_of("reward"), bert_dir, tmp_path, new_recorder(), rows_for("dpo"), layer=made.bundles[-1])
