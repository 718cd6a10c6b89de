# SPDX-License-Identifier: Apache-2.0
"""Supervised fine-tuning of encoder-decoders: losses, rows, and whole jobs."""

from __future__ import annotations

import json
import shutil
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from cloister.formats.stream import RowStream
from cloister_workers.errors import TrainerError
from cloister_workers.messages import Failed, FailureCode, MetricName, ModelNeed, RowReason
from cloister_workers.trainer.answers import exact_match, word_f1
from cloister_workers.trainer.failures import failure_of
from cloister_workers.trainer.generation import Sampler
from cloister_workers.trainer.model import load_sequence_to_sequence, load_tokenizer
from cloister_workers.trainer.objectives.sequence_to_sequence import SequenceToSequence
from cloister_workers.trainer.prompts import FALLBACK_TEMPLATE
from cloister_workers.trainer.text_metrics import UNWRITABLE, right_text, rouge_l
from planted import write_tiny_masked
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
    return SequenceToSequence(load_tokenizer(str(folder), padded=True), 16, 8, CPU, 16, truncate=truncate)


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


def test_silence_is_no_right_answer_where_the_tokenizer_has_no_words(folders):
    """An answer of words that the tokenizer does not have cannot be matched by saying nothing."""
    tokenizer = load_tokenizer(str(folders["t5"]), padded=True)
    sampler = Sampler(torch.nn.Module(), tokenizer, CPU, lambda: None)
    wanted = right_text(sampler, tokenizer("red")["input_ids"])
    assert (False, 0.0) == (exact_match("", [wanted]), word_f1("", [wanted]))
    assert 0 == rouge_l("", wanted)
    assert f"t1 {UNWRITABLE} t2" == right_text(sampler, tokenizer("t1 red cat t2")["input_ids"])


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


def turns(*contents: str) -> list[dict[str, object]]:
    """Messages of user and assistant in turn."""
    return [{"role": ("user", "assistant")[place % 2], "content": said} for place, said in enumerate(contents)]


def test_a_chat_is_its_last_answer_and_what_was_said_before(folders):
    """System and user contents, joined by line ends, are the source and the last learned answer the target."""
    system: dict[str, object] = {"role": "system", "content": "f9"}
    weightless = {"role": "assistant", "content": "t9", "weight": 0}
    objective = objective_of(folders["t5"])
    chats: list[dict[str, object]] = [
        {"messages": [system, *turns("f1\nf2", "t1 t2")]},
        {"messages": [system, *turns("f1\nf2", "t1 t2"), *turns("f3"), weightless]},
        {"prompt": [system, *turns("f1\nf2")], "completion": turns("f3", "t1 t2")[1:]},
    ]
    (plain,) = examples_of(objective, [{"source": "f9\nf1\nf2", "target": "t1 t2"}])
    for example in examples_of(objective, chats):
        assert (plain.tokens, plain.other.tokens) == (example.tokens, example.other.tokens)
    (several,) = examples_of(objective, [{"messages": turns("f1", "t1", "f2", "t2")}])
    (joined,) = examples_of(objective, [{"source": "f1\nt1\nf2", "target": "t2"}])
    assert (joined.tokens, joined.other.tokens) == (several.tokens, several.other.tokens)


def test_chats_without_an_answer_or_with_tools_are_refused(folders):
    """A chat with nothing to learn, or with what has no plain form, is refused by its reason."""
    call: dict[str, object] = {"role": "assistant", "tool_calls": [{"function": {"name": "look"}}]}
    rows: list[dict[str, object]] = [
        {"messages": turns("f1")},
        {"messages": turns("f1", "t1")[1:]},
        {"messages": turns("f1", "t1"), "tools": [{"type": "function"}]},
        {"messages": [*turns("f1"), call, {"role": "tool", "content": "f2"}, *turns("f1", "t1")[1:]]},
        {"messages": [*turns("f1"), call]},
        {"prompt": turns("f1")},
        {"messages": "f1"},
    ]
    reasons = [
        RowReason.NO_COMPLETION,
        RowReason.NO_COMPLETION,
        RowReason.TEMPLATE_REFUSED,
        RowReason.TEMPLATE_REFUSED,
        RowReason.TEMPLATE_REFUSED,
        RowReason.MISSING_KEY,
        RowReason.WRONG_TYPE,
    ]
    assert reasons == examples_of(objective_of(folders["t5"]), rows)


def test_inference_asks_a_chat_as_training_read_it(folders, monkeypatch):
    """The tokens that an encoder is asked are those that it learnt from, with a template of its own or without."""
    asked: list[Any] = []
    monkeypatch.setattr(Sampler, "continued", lambda _, prompts, __: asked.extend(prompts))
    templates = (None, FALLBACK_TEMPLATE, "{% for message in messages %}f0 {{ message.content }} {% endfor %}")
    for template in templates:
        objective = objective_of(folders["t5"])
        objective.tokenizer.chat_template = template
        (example,) = examples_of(objective, [{"messages": turns("f1", "t1")}])
        model: Any = torch.nn.Module()
        model.config = SimpleNamespace(is_encoder_decoder=True)
        Sampler(model, objective.tokenizer, CPU, lambda: None).answers([turns("f1")], 4)
        assert example.tokens.tolist() == asked[-1]
    assert [2, 2, 2] == [len(tokens) for tokens in asked]


def test_alpaca_rows_teach_an_encoder_decoder(folders, tmp_path, recorder):
    """An Alpaca file, converted as the client does, trains T5, whose held-out answers become better."""
    pairs = [json.loads(line) for line in translation_rows(300, 1).splitlines()]
    path = tmp_path / "alpaca.json"
    path.write_text(json.dumps([{"instruction": row["source"], "input": "", "output": row["target"]} for row in pairs]))
    rows = b"".join(RowStream([path], "alpaca").lines())
    spec = job_spec("supervised", n_epochs=8, learning_rate=0.01, batch_size=16, micro_batch_size=16)
    told = run_job(spec, folders["t5"], tmp_path, recorder, rows)
    before, after = measured(told)
    assert after[MetricName.EVAL_TOKEN_ACCURACY] > before[MetricName.EVAL_TOKEN_ACCURACY] + 0.3


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


def test_held_out_translations_become_right(folders, tmp_path, recorder):
    """After training T5 says more held-out translations exactly than before, intervals apart."""
    wanted = {"learning_rate": 0.003, "n_epochs": 40, "batch_size": 16, "micro_batch_size": 16}
    spec = job_spec("supervised", {"metrics": "answer", "max_new_tokens": 8}, **wanted)
    rows, held_out = translation_rows(600, 1), translation_rows(40, 2)
    before, after = measured(run_job(spec, folders["t5"], tmp_path, recorder, rows, evaluation=held_out))
    assert after[MetricName.EVAL_EXACT_MATCH_CI_LOW] > before[MetricName.EVAL_EXACT_MATCH_CI_HIGH]
    assert after[MetricName.EVAL_F1_CI_LOW] > before[MetricName.EVAL_F1_CI_HIGH]


@pytest.mark.parametrize("kind", ["t5", "bart"])
@pytest.mark.parametrize("at", [3, 11])
def test_resume_is_exact_to_the_bit(folders, tmp_path, new_recorder, kind, at):
    """Training that was stopped and resumed is training that never stopped, dropout on."""
    check_resume(job_spec("supervised", n_epochs=3), folders[kind], tmp_path, new_recorder, translation_rows(60, 3), at)


def test_refused_rows_have_numbers(folders, tmp_path, recorder):
    """A malformed row ends the job before training, with its number."""
    rows = translation_rows(10, 1) + b"\n" + json.dumps({"source": "f1"}).encode()
    spec = job_spec("supervised")
    assert ((11, RowReason.MISSING_KEY),) == refused(spec, folders["t5"], tmp_path, recorder, rows)


@pytest.mark.parametrize("name", ["source", "target"])
def test_rows_beyond_the_positions_are_refused(folders, tmp_path, recorder, name):
    """What is longer than BART's encoder or decoder has positions for is refused by its number."""
    row = {"source": "f1", "target": "t1", name: " ".join(["f1"] * 70)}
    rows = translation_rows(10, 1) + b"\n" + json.dumps(row).encode()
    spec = job_spec("supervised", max_seq_length=512)
    assert ((11, RowReason.TOO_LONG),) == refused(spec, folders["bart"], tmp_path, recorder, rows)


@pytest.mark.parametrize("kind", ["t5", "bart", "masked"])
def test_causal_methods_refuse_other_kinds(folders, tmp_path, recorder, kind):
    """A method of causal models refuses encoder-decoders and encoders by what they are, before anything is trained."""
    folder = write_tiny_masked(tmp_path) if kind == "masked" else folders[kind]
    told = {"t5": "a t5, an encoder-decoder", "bart": "a bart, an encoder-decoder", "masked": "a bert, an encoder"}
    rows = [{"prompt": f"f{n} f1", "chosen": " t1 t1", "rejected": " t2"} for n in range(20)]
    with pytest.raises(TrainerError, match=told[kind]) as caught:
        run_job(job_spec("preference"), folder, tmp_path, recorder, "\n".join(map(json.dumps, rows)).encode())
    assert Failed(code=FailureCode.MODEL_INVALID, model_need=ModelNeed.CAUSAL) == failure_of(caught.value)
    assert [] == recorder.losses()


def test_a_decoder_needs_a_first_token(folders, tmp_path, recorder):
    """An encoder-decoder whose configuration does not say how answers begin is refused."""
    shutil.copytree(folders["bart"], tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    (tmp_path / "model" / "config.json").write_text(json.dumps({**config, "decoder_start_token_id": None}))
    (tmp_path / "model" / "generation_config.json").unlink(missing_ok=True)
    with pytest.raises(TrainerError, match="decoder_start_token_id") as caught:
        run_job(job_spec("supervised"), tmp_path / "model", tmp_path, recorder, translation_rows(10, 1))
    assert FailureCode.MODEL_INVALID == caught.value.code


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
