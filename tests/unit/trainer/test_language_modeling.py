# SPDX-License-Identifier: Apache-2.0
"""Pre-training, from nothing and continued: documents in pieces, families of models, whole jobs, resume."""

from __future__ import annotations

import copy
import importlib.util
import io
import json
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

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
from cloister_workers.trainer import byte_pairs, job, layer, metrics
from cloister_workers.trainer.bundle import read_bundle
from cloister_workers.trainer.model import load_tokenizer
from cloister_workers.trainer.objectives.language_model import TextReader
from cloister_workers.trainer.objectives.language_modeling import is_masked
from cloister_workers.trainer.objectives.masked_language_model import MaskedLanguageModel
from cloister_workers.trainer.place import Workplace
from cloister_workers.trainer.spec import parse_spec
from planted import write_tiny_masked
from tiny_models import WORDS, write_llama

CPU = torch.device("cpu")
TRAINED = {"initialisation": "random", "tokenizer": "trained", "vocabulary_size": 300}
SMALL = {
    "vocab_size": 300,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
KV = {**SMALL, "num_key_value_heads": 2}
WINDOWS = {**KV, "head_dim": 8, "sliding_window": 8}


def texts(count, longest=9):
    return [" ".join(WORDS[(n * s + s) % 10] for s in range(1, 4 + n % longest)) for n in range(count)]


def jsonl(rows):
    return "\n".join(json.dumps({"text": text}) for text in rows).encode()


def spec_of(settings=None, data=None, adapter=None, **hyperparameters):
    given = {"batch_size": 8, "max_seq_length": 8, "learning_rate": 0.01, "n_epochs": 2, **hyperparameters}
    method = {"language_modeling": {**(settings or {}), "hyperparameters": given}}
    return parse_spec(
        {"model": "tiny", "seed": "5", "data": data or {}, "method": method, "adapter": adapter or {"full": {}}}
    )


def run(spec, model_dir, scratch, recorder, training, **more):
    inputs = {DatasetRole.TRAINING: io.BytesIO(training)}
    inputs |= {DatasetRole(name): io.BytesIO(content) for name, content in more.items()}
    ticks = iter(range(1_000_000))
    job.run_job(spec, inputs, Workplace(str(model_dir), str(scratch), CPU, lambda: float(next(ticks))), recorder)
    return recorder


def measured(recorder, phase=EvaluationPhase.AFTER):
    return next(entry[2] for entry in recorder.messages if isinstance(entry, tuple) and entry[0] is phase)


def whole_of(reader, text):
    found = reader.pieces({"text": text})
    assert not isinstance(found, RowReason)
    return found


def unpacked(recorder, directory):
    directory.mkdir()
    for name, content in read_bundle(io.BytesIO(recorder.bundles[-1])).items():
        (directory / name).write_bytes(content)
    return directory


@pytest.fixture(scope="module")
def masked_dir(tmp_path_factory):
    return write_tiny_masked(tmp_path_factory.mktemp("masked"))


# ---------------------------------------------------------------- documents
def test_long_texts_are_cut_into_pieces_that_lose_nothing(llama_dir):
    """Every token but the first is a target of exactly one piece, predicted from the token before it."""
    tokenizer = load_tokenizer(str(llama_dir))
    text = " ".join(WORDS[n % 10] for n in range(30))
    [whole] = whole_of(TextReader(tokenizer, 100), text)
    pieces = whole_of(TextReader(tokenizer, 8), text)
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
    run(spec_of(max_steps=1), llama_dir, tmp_path, recorder, jsonl(f"{text} {text}" for text in texts(40)))
    told = [message for message in recorder.messages if isinstance(message, Rows)]
    assert 40 == sum(message.used for message in told)
    assert 0 < told[0].truncated <= told[0].used
    assert told[2].used == measured(recorder)[MetricName.EVAL_ROWS]


@pytest.mark.parametrize(("too_long", "tokens"), [("truncate", 8), ("", 31)])
def test_long_rows_are_cut_off_where_the_spec_says_so(llama_dir, tmp_path, recorder, too_long, tokens):
    """`truncate` keeps max_seq_length tokens of a long row; by default its pieces keep them all."""
    data = {"too_long": too_long, "validation_fraction": 0.0, "evaluation_fraction": 0.0}
    run(spec_of(data=data, max_steps=1), llama_dir, tmp_path, recorder, jsonl([" ".join(WORDS[:7] * 4)]))
    [told, *_] = [message for message in recorder.messages if isinstance(message, Rows)]
    # 28 words and two ends; pieces repeat the token that they go on from
    assert (1, 1) == (told.used, told.truncated)
    assert tokens + (4 if not too_long else 0) - (1 if not too_long else 0) == told.tokens


def test_long_rows_are_refused_where_the_spec_says_so(llama_dir, tmp_path, recorder):
    """`refuse` makes a row of more than max_seq_length tokens a row error with its number."""
    with pytest.raises(RowsRefused):
        run(spec_of(data={"too_long": "refuse"}), llama_dir, tmp_path, recorder, jsonl(["alpha", "alpha " * 20]))
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
    first = run(spec_of(**long), llama_dir, tmp_path, new_recorder(), jsonl(first_kind))
    base = unpacked(first, tmp_path / "base")
    forgotten = {}
    for ratio in (0.0, 0.5):
        told = run(
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
    run(spec_of(TRAINED), empty, tmp_path, recorder, jsonl(rows[10:]), evaluation=jsonl(rows[:10]))
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
    run(spec_of({"initialisation": "random"}, n_epochs=4), folder, tmp_path, recorder, jsonl(rows))
    before, after = (measured(recorder, phase) for phase in (EvaluationPhase.BEFORE, EvaluationPhase.AFTER))
    assert after[MetricName.EVAL_LOSS] < before[MetricName.EVAL_LOSS]


def test_random_weights_are_those_of_the_seed(tmp_path, new_recorder):
    """Equal seeds give equal results byte for byte, without weights or tokenizer in the folder."""
    transformers.BertConfig(**SMALL).save_pretrained(tmp_path / "config")
    spec = spec_of(TRAINED)
    first, second = (run(spec, tmp_path / "config", tmp_path, new_recorder(), jsonl(texts(40))) for _ in range(2))
    assert first.bundles[-1] == second.bundles[-1]


@pytest.mark.parametrize(
    ("settings", "adapter", "field"),
    [
        ({"initialisation": "random"}, {"lora": {}}, SpecField.ADAPTER),
        ({"tokenizer": "trained"}, {"full": {}}, SpecField.METHOD),
        ({"objective": "backwards"}, {"full": {}}, SpecField.METHOD),
        ({"masking": 0.95}, {"full": {}}, SpecField.METHOD),
    ],
)
def test_settings_that_do_not_fit_are_refused(llama_dir, tmp_path, recorder, settings, adapter, field):
    """Random weights under an adapter, a new tokenizer under old weights and unknown words are SPEC_INVALID."""
    with pytest.raises(SpecError) as caught:
        run(spec_of(settings, adapter=adapter), llama_dir, tmp_path, recorder, jsonl(texts(9)))
    assert (FailureCode.SPEC_INVALID, field) == (caught.value.code, caught.value.field)


def test_random_weights_over_a_version_are_refused(llama_dir, tmp_path, new_recorder):
    """A job that starts from a version cannot ask for random weights."""
    spec = spec_of(max_steps=1)
    version = run(spec, llama_dir, tmp_path, new_recorder(), jsonl(texts(20))).bundles[-1]
    with pytest.raises(SpecError):
        run(spec_of({"initialisation": "random"}), llama_dir, tmp_path, new_recorder(), jsonl(texts(20)), layer=version)


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


# ---------------------------------------------------------------- families
FAMILIES = {
    "gpt2": (
        transformers.GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=64, bos_token_id=0, eos_token_id=0),
        "cloister_packed",
    ),
    "llama": (transformers.LlamaConfig(**KV), "cloister_packed"),
    "qwen2": (transformers.Qwen2Config(**KV), "cloister_packed"),
    "mistral": (transformers.MistralConfig(**KV, sliding_window=8), "cloister_packed"),
    "gemma": (transformers.GemmaConfig(**KV, head_dim=8), "cloister_packed"),
    "gemma2": (transformers.Gemma2Config(**WINDOWS, query_pre_attn_scalar=8), "eager"),  # soft caps
    "granite": (transformers.GraniteConfig(**KV, logits_scaling=4.0), "eager"),
    "bert": (transformers.BertConfig(**SMALL), None),
    "roberta": (transformers.RobertaConfig(**{**SMALL, "pad_token_id": 1}), None),
    "xlm-roberta": (transformers.XLMRobertaConfig(**{**SMALL, "pad_token_id": 1}), None),
    "distilbert": (
        transformers.DistilBertConfig(dim=32, n_layers=2, n_heads=4, hidden_dim=48, max_position_embeddings=64),
        None,
    ),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_learns(family, tmp_path, recorder, monkeypatch):
    """A tiny model of each family falls well under the loss of guessing evenly, on texts longer than its positions."""
    config, attention = FAMILIES[family]
    config.save_pretrained(tmp_path / "config")
    seen: list[Any] = []

    def attach(base, *rest):
        seen.append(base.model)
        return layer.attach(base, *rest)

    monkeypatch.setattr(job, "attach", attach)
    settings = {"max_seq_length": 512, "micro_batch_size": 4, "n_epochs": 4}
    run(spec_of(TRAINED, **settings), tmp_path / "config", tmp_path, recorder, jsonl(texts(60, 40)))
    before, after = (measured(recorder, phase) for phase in (EvaluationPhase.BEFORE, EvaluationPhase.AFTER))
    assert 5.7 == pytest.approx(before[MetricName.EVAL_LOSS], abs=0.3)
    assert after[MetricName.EVAL_LOSS] < before[MetricName.EVAL_LOSS] - 0.8
    assert after[MetricName.EVAL_LOSS_CI_LOW] < after[MetricName.EVAL_LOSS] < after[MetricName.EVAL_LOSS_CI_HIGH]
    if attention:
        assert attention == seen[0].config._attn_implementation


@pytest.mark.parametrize("family", FAMILIES)
def test_a_trained_tokenizer_loads_again_as_it_was(family, tmp_path):
    """A trained tokenizer is what transformers makes of the result's files, whatever class it takes for them."""
    config, attention = copy.deepcopy(FAMILIES[family][0]), FAMILIES[family][1]
    rows = ["The quick brown fox", "Hello, World! naïve  two  spaces\n\nnew line", "def f(x):\n    return x"] * 3
    made = byte_pairs.train_tokenizer(rows, 300, byte_pairs.specials_of(config, masked=attention is None))
    tokenizer = byte_pairs.as_loaded(made, config)
    config.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    again = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text in rows[:3]:
        ids = tokenizer(text)["input_ids"]
        assert ids == again(text)["input_ids"]
        assert text == again.decode(ids, skip_special_tokens=True)


@pytest.mark.parametrize(
    ("config", "asked", "masked"),
    [
        (transformers.BertConfig(), "auto", True),
        (transformers.BertConfig(is_decoder=True), "auto", False),
        (transformers.LlamaConfig(), "auto", False),
        (transformers.XLMRobertaConfig(), "auto", True),
        (transformers.GPT2Config(), "causal", False),
    ],
)
def test_the_objective_goes_by_the_architecture(config, asked, masked):
    """Encoders are masked, decoders and encoders that say they decode are causal."""
    assert masked == is_masked(config, asked)


@pytest.mark.parametrize(
    ("config", "asked"), [(transformers.GPT2Config(), "masked"), (transformers.ViTConfig(), "auto")]
)
def test_models_without_the_objective_are_refused(config, asked):
    """A decoder cannot fill gaps, and a model of pictures has no next token: MODEL_INVALID."""
    with pytest.raises(TrainerError) as caught:
        is_masked(config, asked)
    assert FailureCode.MODEL_INVALID == caught.value.code


def test_an_encoder_is_no_causal_model(masked_dir, tmp_path, recorder):
    """A BERT that sees tokens ahead is MODEL_UNSUPPORTED as a causal model: it would only learn to copy them."""
    with pytest.raises(TrainerError) as caught:
        run(spec_of({"objective": "causal"}), masked_dir, tmp_path, recorder, jsonl(f"The river {n}" for n in range(9)))
    assert FailureCode.MODEL_UNSUPPORTED == caught.value.code


def test_a_tokenizer_without_a_mask_is_refused(bert_dir, tmp_path, recorder):
    """A masked objective needs a mask token: MODEL_INVALID."""
    with pytest.raises(TrainerError) as caught:
        run(spec_of(), bert_dir, tmp_path, recorder, jsonl(texts(9)))
    assert FailureCode.MODEL_INVALID == caught.value.code


def test_a_tokenizer_with_no_special_token_works(tmp_path, recorder):
    """A causal model whose tokenizer has neither padding nor ends trains on texts as they are."""
    folder = tmp_path / "model"
    folder.mkdir()
    write_llama(folder)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    bare = {key: value for key, value in config.items() if key not in ("pad_token", "eos_token", "bos_token")}
    (folder / "tokenizer_config.json").write_text(json.dumps(bare))
    (folder / "special_tokens_map.json").unlink(missing_ok=True)
    run(spec_of(), folder, tmp_path, recorder, jsonl(texts(40)))
    before, after = (measured(recorder, phase) for phase in (EvaluationPhase.BEFORE, EvaluationPhase.AFTER))
    assert after[MetricName.EVAL_LOSS] < before[MetricName.EVAL_LOSS]


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
def test_a_bare_encoder_gets_a_head_that_the_adapter_trains(tmp_path, new_recorder):
    """A BERT without a masked head gets a fresh one; LoRA trains and exports it, and a second job goes on from it."""
    folder = tmp_path / "model"
    folder.mkdir()
    write_tiny_masked(folder)
    model = transformers.AutoModelForMaskedLM.from_pretrained(folder)
    model.bert.save_pretrained(folder)
    rows = jsonl(
        " ".join(random.Random(n).choices(["The", "river", "house", "garden", "kind"], k=8)) for n in range(60)
    )
    lora = {"lora": {"target_modules": ["query", "value"]}}
    first = run(spec_of(adapter=lora, n_epochs=16), folder, tmp_path, new_recorder(), rows)
    before, after = (measured(first, phase) for phase in (EvaluationPhase.BEFORE, EvaluationPhase.AFTER))
    assert after[MetricName.EVAL_LOSS] < before[MetricName.EVAL_LOSS] - 0.3
    config = json.loads(read_bundle(io.BytesIO(first.bundles[-1]))["adapter_config.json"])
    assert {"cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm"} == set(config["modules_to_save"])
    second = run(spec_of(adapter=lora), folder, tmp_path, new_recorder(), rows, layer=first.bundles[-1])
    again = measured(second, EvaluationPhase.BEFORE)
    assert after[MetricName.EVAL_LOSS] == pytest.approx(again[MetricName.EVAL_LOSS], abs=1e-5)


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
    whole = run(spec, tmp_path / "config", tmp_path, new_recorder(), rows)
    first = new_recorder(pause_at=step)
    with pytest.raises(Paused) as paused:
        run(spec, tmp_path / "config", tmp_path, first, rows)
    assert step == paused.value.step
    second = run(spec, tmp_path / "config", tmp_path, new_recorder(), rows, checkpoint=first.bundles[0])
    assert whole.losses() == first.losses() + second.losses()
    assert whole.bundles[-1] == second.bundles[-1]


# ---------------------------------------------------------------- real text
@pytest.fixture(scope="module")
def benchmark():
    path = Path(__file__).resolve().parents[3] / "benchmarks/continued_pretraining.py"
    found = importlib.util.spec_from_file_location("continued_pretraining", path)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return SimpleNamespace(**vars(module))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_continued_pretraining_on_real_english(benchmark, tmp_path):
    """Docstrings of a domain that the base has not seen get likelier by going on with others of it; what is forgotten
    of the first ones is reported, and replay lessens it.
    """
    first, domain = benchmark.parts_of(500)
    base = benchmark.train(benchmark.write_config(tmp_path / "config", 64), first, benchmark.base_settings(2, 1024))
    before, after = base.change(MetricName.EVAL_PERPLEXITY)
    assert after < before / 2
    folder = benchmark.write_version(base.files, tmp_path / "base")
    settings = {"hyperparameters": {"learning_rate": 3e-3, "n_epochs": 2}}
    forgotten = {}
    for ratio in (0.0, 0.5):
        told = benchmark.train(folder, domain[:300], settings, first, ratio)
        before, after = told.change(MetricName.EVAL_PERPLEXITY)
        assert after < 0.8 * before
        forgotten[ratio] = told.measured[EvaluationPhase.AFTER][MetricName.FORGETTING]
    assert forgotten[0.5] < forgotten[0.0]
    assert forgotten[0.0] > 0.0


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_real_encoder_goes_on_as_a_masked_model(benchmark):
    """MiniLM with a fresh head predicts held-out masked words of docstrings better after training on others."""
    first, _ = benchmark.parts_of(60)
    told = benchmark.train(benchmark.minilm(), first, {"hyperparameters": {"learning_rate": 5e-4, "n_epochs": 2}})
    before, after = told.change(MetricName.EVAL_LOSS)
    assert after < before - 1
