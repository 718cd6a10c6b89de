# SPDX-License-Identifier: Apache-2.0
"""Pre-training, from nothing and continued: documents in pieces, families of models, whole jobs, resume."""

from __future__ import annotations

import io
import random

import numpy as np
import pytest
import torch
import transformers

from cloister_workers.errors import Paused, RowsRefused, SpecError, TrainerError
from cloister_workers.messages import (
    DatasetRole,
    EvaluationPhase,
    FailureCode,
    MetricName,
    RowErrors,
    RowReason,
    Rows,
    SpecField,
)
from cloister_workers.trainer import byte_pairs, job, metrics
from cloister_workers.trainer.model import load_tokenizer
from cloister_workers.trainer.objectives.language_model import CorpusReader
from cloister_workers.trainer.objectives.masked_language_model import MaskedLanguageModel
from cloister_workers.trainer.place import Workplace
from language_jobs import CPU, KV, SMALL, TRAINED, jsonl, measured, spec_of, texts, unpacked
from planted import write_tiny_masked
from tiny_models import WORDS
from trainer_jobs import run_job


def whole_of(reader, text):
    found = reader.pieces({"text": text})
    assert not isinstance(found, RowReason)
    return found


@pytest.fixture(scope="module")
def masked_dir(tmp_path_factory):
    return write_tiny_masked(tmp_path_factory.mktemp("masked"))


# ---------------------------------------------------------------- documents
def test_long_texts_are_cut_into_pieces_that_lose_nothing(llama_dir):
    """Every token but the first is a target of exactly one piece, predicted from the token before it."""
    tokenizer = load_tokenizer(str(llama_dir))
    text = " ".join(WORDS[n % 10] for n in range(30))
    [whole] = whole_of(CorpusReader(tokenizer, 100), text)
    pieces = whole_of(CorpusReader(tokenizer, 8), text)
    pairs = [pair for piece in pieces for pair in zip(piece.tokens, piece.tokens[1:], strict=False)]
    assert list(zip(whole.tokens, whole.tokens[1:], strict=False)) == pairs
    assert [0, 1, 2, 3, 4] == [piece.piece for piece in pieces]
    assert max(len(piece.tokens) for piece in pieces) == 8
    assert {whole.group} == {piece.group for piece in pieces}
    assert 5 == len({piece.digest for piece in pieces})
    assert [True, False, False, False, False] == [piece.truncated for piece in pieces]


def test_masked_pieces_hold_the_whole_text(masked_dir):
    """The pieces' tokens between their special ones are those of the text, and each has targets of its own."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(masked_dir)
    text = " ".join(["The", "river", "house"] * 9)
    pieces = whole_of(MaskedLanguageModel(tokenizer, 8, 4, CPU, seed=3), text)
    inner = [token for piece in pieces for token in piece.tokens[1:-1]]
    assert tokenizer(text, add_special_tokens=False)["input_ids"] == inner
    assert all(any(piece.learned) for piece in pieces)
    assert list(range(len(pieces))) == [piece.piece for piece in pieces]


def test_rows_count_as_rows_and_stay_on_one_side(llama_dir, tmp_path, recorder):
    """Pieces of a row are one row where rows are counted; validation, evaluation and training share no document."""
    run_job(spec_of(max_steps=1), llama_dir, tmp_path, recorder, jsonl(f"{text} {text}" for text in texts(40)))
    told = [message for message in recorder.messages if isinstance(message, Rows)]
    assert 40 == sum(message.used for message in told)
    assert 0 < told[0].truncated <= told[0].used
    assert told[2].used == measured(recorder)[MetricName.EVAL_ROWS]


@pytest.mark.parametrize(("too_long", "tokens"), [("truncate", 8), ("", 31)])
def test_long_rows_are_cut_off_where_the_spec_says_so(llama_dir, tmp_path, recorder, too_long, tokens):
    """`truncate` keeps max_seq_length tokens of a long row; by default its pieces keep them all."""
    data = {"too_long": too_long, "validation_fraction": 0.0, "evaluation_fraction": 0.0}
    run_job(spec_of(data=data, max_steps=1), llama_dir, tmp_path, recorder, jsonl([" ".join(WORDS[:7] * 4)]))
    [told, *_] = [message for message in recorder.messages if isinstance(message, Rows)]
    # 28 words and two ends; pieces repeat the token that they go on from
    assert (1, 1) == (told.used, told.truncated)
    assert tokens + (4 if not too_long else 0) - (1 if not too_long else 0) == told.tokens


def test_long_rows_are_refused_where_the_spec_says_so(llama_dir, tmp_path, recorder):
    """`refuse` makes a row of more than max_seq_length tokens a row error with its number."""
    with pytest.raises(RowsRefused):
        run_job(spec_of(data={"too_long": "refuse"}), llama_dir, tmp_path, recorder, jsonl(["alpha", "alpha " * 20]))
    [told] = [message for message in recorder.messages if isinstance(message, RowErrors)]
    assert ((2, RowReason.TOO_LONG),) == told.errors


# ---------------------------------------------------------------- what is measured
def test_the_interval_is_the_ratio_estimators():
    """The interval equals the one written out with numpy, and is near that of a bootstrap over documents."""
    draw = random.Random(3)
    clusters = [bytes([number // 3]) for number in range(120)]
    weights = [draw.randint(3, 30) for _ in clusters]
    sums = [weight * draw.gauss(2 + cluster[0] % 5, 0.3) for weight, cluster in zip(weights, clusters, strict=True)]
    found = metrics.ratio_interval(sums, weights, clusters)
    assert found is not None
    low, high = found
    s, w = np.array(sums).reshape(40, 3).sum(1), np.array(weights).reshape(40, 3).sum(1)
    ratio = s.sum() / w.sum()
    error = np.sqrt(np.var(s - ratio * w, ddof=1) * 40) / w.sum()
    assert (ratio - 2.0226909 * error, ratio + 2.0226909 * error) == pytest.approx((low, high), abs=1e-6)
    chosen = np.random.default_rng(1).integers(40, size=(4000, 40))
    drawn = s[chosen].sum(1) / w[chosen].sum(1)
    assert np.quantile(drawn, [0.025, 0.975]) == pytest.approx([low, high], rel=0.05)


def test_one_document_has_no_interval():
    """Nothing is said about how far a figure of a single document is from others."""
    assert metrics.ratio_interval([1.0, 2.0], [1, 1], [b"a", b"a"]) is None


def test_forgetting_is_measured_and_replay_lessens_it(llama_dir, tmp_path, new_recorder):
    """Training on one kind of text raises the loss on another kind; less so where a share of it is repeated."""
    first_kind, second_kind = (
        [
            " ".join(WORDS[(start + stride * place) % 10] for place in range(size))
            for start in range(10)
            for size in sizes
        ]
        for stride, sizes in ((1, range(8, 14)), (3, range(8, 14)))
    )
    long = {"max_seq_length": 32, "n_epochs": 15}
    first = run_job(spec_of(**long), llama_dir, tmp_path, new_recorder(), jsonl(first_kind))
    base = unpacked(first, tmp_path / "base")
    forgotten = {}
    for ratio in (0.0, 0.5):
        told = run_job(
            spec_of(data={"replay_ratio": ratio}, **long),
            base,
            tmp_path,
            new_recorder(),
            jsonl(second_kind),
            replay=jsonl(first_kind),
        )
        before, after = (measured(told, phase) for phase in (EvaluationPhase.BEFORE, EvaluationPhase.AFTER))
        assert after[MetricName.EVAL_LOSS] < before[MetricName.EVAL_LOSS]
        forgotten[ratio] = after[MetricName.FORGETTING]
        rise = after[MetricName.REPLAY_LOSS] - before[MetricName.REPLAY_LOSS]
        assert rise == pytest.approx(forgotten[ratio], abs=1e-9)
    assert forgotten[0.0] > 0.2
    assert forgotten[0.5] < forgotten[0.0] / 2


# ---------------------------------------------------------------- from nothing
def test_trained_tokenizers_do_not_depend_on_the_order_of_texts():
    """The same texts in another order give the same tokenizer, byte for byte."""
    rows = [f"{text} and the other {n % 17}" for n, text in enumerate(texts(300, 20))]
    shuffled = random.Random(1).sample(rows, len(rows))
    one, other = (byte_pairs.train_tokenizer(part, 400, byte_pairs.CAUSAL) for part in (rows, shuffled))
    assert one.backend_tokenizer.to_str() == other.backend_tokenizer.to_str()
    assert 259 < len(one) <= 400


def test_a_model_from_nothing_loads_elsewhere(tmp_path, recorder):
    """A folder with a configuration alone is enough, and the result loads with its own tokenizer to the same loss."""
    empty = tmp_path / "config"
    transformers.LlamaConfig(**KV).save_pretrained(empty)
    rows = texts(60)
    run_job(spec_of(TRAINED), empty, tmp_path, recorder, jsonl(rows[10:]), evaluation=jsonl(rows[:10]))
    folder = unpacked(recorder, tmp_path / "out")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    assert len(tokenizer) == model.config.vocab_size
    assert 0 == model.config.eos_token_id == tokenizer.eos_token_id
    total, count = 0.0, 0
    for text in rows[:10]:
        ids = torch.tensor([[0, *tokenizer(text)["input_ids"], 0]])
        for start in range(0, ids.shape[1] - 1, 7):
            piece = ids[:, start : start + 8]
            with torch.no_grad():
                total += float(model(input_ids=piece, labels=piece).loss) * (piece.shape[1] - 1)
            count += piece.shape[1] - 1
    assert total / count == pytest.approx(measured(recorder)[MetricName.EVAL_LOSS], abs=1e-5)


@pytest.mark.parametrize("kind", ["causal", "masked"])
def test_a_given_tokenizer_goes_with_random_weights(kind, llama_dir, masked_dir, tmp_path, recorder):
    """A folder with a configuration and a tokenizer, but no weights, is enough where the weights are random."""
    folder = tmp_path / "model"
    folder.mkdir()
    for path in (llama_dir if kind == "causal" else masked_dir).iterdir():
        if path.suffix != ".safetensors":
            (folder / path.name).write_bytes(path.read_bytes())
    rows = texts(40) if kind == "causal" else [f"The river house {['he', 'she'][n % 2]} {n}" for n in range(40)]
    run_job(spec_of({"initialisation": "random"}, n_epochs=4), folder, tmp_path, recorder, jsonl(rows))
    before, after = (measured(recorder, phase) for phase in (EvaluationPhase.BEFORE, EvaluationPhase.AFTER))
    assert after[MetricName.EVAL_LOSS] < before[MetricName.EVAL_LOSS]


def test_random_weights_are_those_of_the_seed(tmp_path, new_recorder):
    """Equal seeds give equal results byte for byte, without weights or tokenizer in the folder."""
    transformers.BertConfig(**SMALL).save_pretrained(tmp_path / "config")
    spec = spec_of(TRAINED)
    first, second = (run_job(spec, tmp_path / "config", tmp_path, new_recorder(), jsonl(texts(40))) for _ in range(2))
    assert first.bundles[-1] == second.bundles[-1]


@pytest.mark.parametrize(
    ("settings", "adapter", "field"),
    [
        ({"initialisation": "random"}, {"lora": {}}, SpecField.ADAPTER),
        ({"tokenizer": "trained"}, {"full": {}}, SpecField.TOKENIZER),
        ({"objective": "backwards"}, {"full": {}}, SpecField.OBJECTIVE),
        ({"masking": 0.95}, {"full": {}}, SpecField.MASKING),
    ],
)
def test_settings_that_do_not_fit_are_refused(llama_dir, tmp_path, recorder, settings, adapter, field):
    """Random weights under an adapter, a new tokenizer under old weights and unknown words are SPEC_INVALID."""
    with pytest.raises(SpecError) as caught:
        run_job(spec_of(settings, adapter=adapter), llama_dir, tmp_path, recorder, jsonl(texts(9)))
    assert (FailureCode.SPEC_INVALID, field) == (caught.value.code, caught.value.field)


def test_random_weights_over_a_version_are_refused(llama_dir, tmp_path, new_recorder):
    """A job that starts from a version cannot ask for random weights."""
    spec = spec_of(max_steps=1)
    version = run_job(spec, llama_dir, tmp_path, new_recorder(), jsonl(texts(20))).bundles[-1]
    with pytest.raises(SpecError):
        run_job(
            spec_of({"initialisation": "random"}), llama_dir, tmp_path, new_recorder(), jsonl(texts(20)), layer=version
        )


def test_an_input_that_fails_is_told(tmp_path, recorder):
    """A stream that breaks off with an error while a tokenizer is made of it is INPUT_UNREADABLE."""

    class Broken(io.BytesIO):
        def read(self, size=-1, /):
            raise OSError(5, "broken")

    transformers.LlamaConfig(**KV).save_pretrained(tmp_path / "config")
    place = Workplace(str(tmp_path / "config"), str(tmp_path), CPU)
    with pytest.raises(TrainerError) as caught:
        job.run_job(spec_of(TRAINED), {DatasetRole.TRAINING: Broken()}, place, recorder)
    assert FailureCode.INPUT_UNREADABLE == caught.value.code


# ---------------------------------------------------------------- resume
@pytest.mark.parametrize("step", [2, 7])
@pytest.mark.parametrize("kind", ["causal", "masked"])
def test_resume_is_exact_to_the_bit(kind, step, tmp_path, new_recorder):
    """A job stopped at a seeded step and resumed has the losses and the result of one that never stopped, tokenizer and
    random weights included.
    """
    config = transformers.GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=64)
    (config if kind == "causal" else transformers.BertConfig(**SMALL)).save_pretrained(tmp_path / "config")
    spec, rows = spec_of(TRAINED), jsonl(texts(50))
    whole = run_job(spec, tmp_path / "config", tmp_path, new_recorder(), rows)
    first = new_recorder(pause_at=step)
    with pytest.raises(Paused) as paused:
        run_job(spec, tmp_path / "config", tmp_path, first, rows)
    assert step == paused.value.step
    second = run_job(spec, tmp_path / "config", tmp_path, new_recorder(), rows, checkpoint=first.bundles[0])
    assert whole.losses() == first.losses() + second.losses()
    assert whole.bundles[-1] == second.bundles[-1]
