# SPDX-License-Identifier: Apache-2.0
"""Supervised fine-tuning of encoder-decoders: losses, rows, and whole jobs."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from cloister_workers.errors import TrainerError
from cloister_workers.messages import FailureCode, MetricName, RowReason
from cloister_workers.trainer.generation import Sampler
from cloister_workers.trainer.model import load_sequence_to_sequence, load_tokenizer
from cloister_workers.trainer.objectives.sequence_to_sequence import SequenceToSequence
from tiny_models import chat_rows
from tiny_seq2seq import summary_rows, translation_rows, write_bart, write_t5
from trainer_jobs import check_resume, examples_of, job_spec, measured, refused, run_job

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
CPU = torch.device("cpu")
ROWS: list[dict[str, object]] = [
    {"source": "f1 f2", "target": "t1 t2"},
    {"source": "f3 f4 f5 f6", "target": "t3"},
    {"source": "f0", "target": "t0 t1 t2 t3"},
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {
        "t5": write_t5(tmp_path_factory.mktemp("t5")),
        "bart": write_bart(tmp_path_factory.mktemp("bart")),
    }


def objective_of(folder, *, truncate=False) -> SequenceToSequence:
    return SequenceToSequence(load_tokenizer(str(folder), padded=True), 16, 8, CPU, truncate=truncate)


@pytest.mark.parametrize("kind", ["t5", "bart"])
def test_losses_are_those_of_transformers(folders, kind):
    """The summed loss of each row, in one padded batch, is what transformers says of the row alone."""
    objective, model = objective_of(folders[kind]), load_sequence_to_sequence(str(folders[kind]), CPU).model.eval()
    examples = examples_of(objective, ROWS)
    with torch.no_grad():
        ours = objective.outcome(model, examples)
        for example, total in zip(examples, ours.sums.tolist(), strict=True):
            labels = torch.tensor([example.other.tokens.tolist()])
            theirs = model(input_ids=torch.tensor([example.tokens.tolist()]), labels=labels).loss
            assert float(theirs) * labels.shape[1] == pytest.approx(total, abs=1e-4)
            assert labels.shape[1] == objective.weight(example)


@pytest.mark.parametrize("kind", ["t5", "bart"])
def test_answers_are_those_of_transformers(folders, kind):
    """Greedy answers of a padded batch are those that transformers generates from each source alone."""
    model: Any = load_sequence_to_sequence(str(folders[kind]), CPU).model.eval()
    tokenizer = load_tokenizer(str(folders[kind]), padded=True)
    sources = [tokenizer(text)["input_ids"] for text in ("f1 f2 f3", "f4", "f5 f6")]
    answers = Sampler(model, tokenizer, CPU, lambda: None).continued(sources, 6)
    for source, answer in zip(sources, answers, strict=True):
        made = model.generate(torch.tensor([source]), max_new_tokens=6, do_sample=False, num_beams=1)
        assert tokenizer.decode(made[0], skip_special_tokens=True).strip() == answer


def test_unusable_rows_have_a_reason(folders):
    """What is no pair of texts, or too long, is refused by its reason; a source is cut where that is asked for."""
    long = " ".join(["f1"] * 20)
    rows: list[dict[str, object]] = [
        {"source": "f1"},
        {"source": 3, "target": "t1"},
        {"source": "f1", "target": " "},
        {"source": long, "target": "t1"},
        {"source": "f1", "target": long},
    ]
    reasons = [
        RowReason.MISSING_KEY,
        RowReason.WRONG_TYPE,
        RowReason.EMPTY_TEXT,
        RowReason.TOO_LONG,
        RowReason.TOO_LONG,
    ]
    assert reasons == examples_of(objective_of(folders["t5"]), rows)
    cut = examples_of(objective_of(folders["t5"], truncate=True), rows[3:])
    assert (16, True, RowReason.TOO_LONG) == (len(cut[0].tokens), cut[0].truncated, cut[1])


SETTINGS = {"metrics": "text", "max_new_tokens": 8}


@pytest.mark.parametrize(
    ("kind", "rows", "epochs"),
    [("t5", translation_rows, 8), ("bart", summary_rows, 12)],
)
def test_held_out_answers_get_better(folders, tmp_path, recorder, kind, rows, epochs):
    """Translating with T5 and summarising with BART get better on held-out rows, by loss, chrF and exact words."""
    wanted = {"learning_rate": 0.01, "n_epochs": epochs, "batch_size": 16, "micro_batch_size": 16}
    spec = job_spec("supervised", SETTINGS, **wanted)
    told = run_job(spec, folders[kind], tmp_path, recorder, rows(300, 1), evaluation=rows(40, 2))
    before, after = measured(told)
    assert after[MetricName.EVAL_LOSS] < before[MetricName.EVAL_LOSS]
    assert after[MetricName.EVAL_CHRF_CI_LOW] > before[MetricName.EVAL_CHRF_CI_HIGH]
    assert after[MetricName.EVAL_ROUGE_L] > before[MetricName.EVAL_ROUGE_L]


@pytest.mark.parametrize("at", [3, 11])
def test_resume_is_exact_to_the_bit(folders, tmp_path, new_recorder, at):
    """Training that was stopped and resumed is training that never stopped."""
    check_resume(job_spec("supervised", n_epochs=3), folders["t5"], tmp_path, new_recorder, translation_rows(60, 3), at)


def test_refused_rows_have_numbers(folders, tmp_path, recorder):
    """A malformed row ends the job before training, with its number."""
    rows = translation_rows(10, 1) + b"\n" + json.dumps({"source": "f1"}).encode()
    spec = job_spec("supervised")
    assert ((11, RowReason.MISSING_KEY),) == refused(spec, folders["t5"], tmp_path, recorder, rows)


def test_an_encoder_is_refused(bert_dir, tmp_path, recorder):
    """A model that is neither causal nor an encoder-decoder is refused before anything is trained."""
    with pytest.raises(TrainerError) as caught:
        run_job(job_spec("supervised"), bert_dir, tmp_path, recorder, chat_rows(40))
    assert FailureCode.MODEL_INVALID == caught.value.code
    assert [] == recorder.losses()


def test_adapters_of_encoder_decoders_are_pefts(folders, tmp_path, recorder):
    """LoRA on T5 lowers the held-out loss, and its export is an adapter that plain peft knows the kind of."""
    import io

    from cloister_workers.trainer.bundle import read_bundle

    adapter = {"lora": {"target_modules": ["q", "v"], "rank": 16}}
    spec = job_spec("supervised", n_epochs=6, learning_rate=0.02, adapter=adapter)
    told = run_job(
        spec, folders["t5"], tmp_path, recorder, translation_rows(120, 1), evaluation=translation_rows(30, 2)
    )
    before, after = measured(told)
    assert after[MetricName.EVAL_LOSS] < before[MetricName.EVAL_LOSS]
    config = json.loads(read_bundle(io.BytesIO(told.bundles[-1]))["adapter_config.json"])
    assert "SEQ_2_SEQ_LM" == config["task_type"]
