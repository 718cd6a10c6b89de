# SPDX-License-Identifier: Apache-2.0
"""Question answering: windows, spans, SQuAD's figures, learning in both forms, resume, refusals."""

from __future__ import annotations

import json
import random

import pytest
import torch
import transformers

from cloister_workers.errors import SpecError, TrainerError
from cloister_workers.messages import FailureCode, MetricName, RowReason
from cloister_workers.trainer.answers import answer_metrics, exact_match, normalised, word_f1
from cloister_workers.trainer.model import load_span_finder, load_tokenizer
from cloister_workers.trainer.objectives.span import Extractive
from tiny_models import WORDS
from trainer_jobs import check_resume, examples_of, job_spec, measured, refused, run_job, unpack

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
CPU = torch.device("cpu")
METHOD = "question_answering"
GENERATIVE = {"form": "generative", "max_answer_tokens": 3}
MODES = ["extractive", "generative"]


def asked_rows(count, seed=1):
    """The answer is the word after `user`; where the context has no `user`, there is none."""
    drawn = random.Random(seed)
    rows = []
    for number in range(count):
        words = [drawn.choice(WORDS[:10]) for _ in range(drawn.randint(3, 6))]
        place = drawn.randrange(len(words) - 1)
        words[place : place + 1] = ["user"] if number % 6 else [words[place]]
        answers = [words[place + 1]] if number % 6 else []
        rows.append({"context": " ".join(words), "question": "assistant", "answers": answers})
    return rows


def lines(rows):
    return "\n".join(json.dumps(row) for row in rows).encode()


def extractive(folder, length=32, stride=2, too_long="", size=8):
    return Extractive(load_tokenizer(str(folder), padded=True), length, size, CPU, stride, 3, too_long)


def test_figures_are_those_of_squad():
    """Articles, case and punctuation do not count, words count as often as they occur, the best answer counts."""
    assert "cat sat on mat" == normalised("The cat, sat on a MAT!")
    assert exact_match("the Cat.", ["dog", "cat"])
    assert not exact_match("cat", [])
    assert exact_match("", [])
    # "new york city" against "york": one word shared of three and one
    assert 0.5 == pytest.approx(word_f1("New York City", ["the York", "Boston"]))
    assert 0.5 == pytest.approx(word_f1("up up", ["up on"]))
    assert (0.0, 1.0, 0.0) == (word_f1("", ["up"]), word_f1("", []), word_f1("up", []))
    found = answer_metrics(["cat", "new york"], [["cat"], ["york"]])
    assert 0.5 == found[MetricName.EVAL_EXACT_MATCH]
    assert (1 + 2 / 3) / 2 == pytest.approx(found[MetricName.EVAL_F1])


def test_loss_is_that_of_transformers(bert_dir):
    """The loss of a window is that of transformers' own model for the tokens of the answer."""
    objective = extractive(bert_dir)
    row = {"context": "echo delta golf hotel", "question": "user", "answers": ["delta golf"]}
    (example,) = examples_of(objective, [row])
    assert (2, 3) == example.windows[0].target
    model = load_span_finder(str(bert_dir), CPU).model.eval()
    ids = torch.tensor([example.tokens.tolist()])
    positions = {"start_positions": torch.tensor([2]), "end_positions": torch.tensor([3])}
    expected = model(input_ids=ids, **positions).loss.item()
    assert expected == pytest.approx(objective.outcome(model, [example]).sums.item(), abs=1e-5)


def test_long_contexts_are_read_in_windows(bert_dir):
    """Windows share the stride, the answer is the target where a window holds it, and a row weighs as its windows."""
    objective = extractive(bert_dir, length=6, stride=2)
    context = "echo delta golf hotel india juliett foxtrot"
    (example,) = examples_of(objective, [{"context": context, "question": "user", "answers": ["india"]}])
    said = [" ".join(context[low:high] for low, high in window.offsets) for window in example.windows]
    assert ["echo delta golf hotel india", "hotel india juliett foxtrot"] == said
    assert [(5, 5), (2, 2)] == [window.target for window in example.windows]
    assert (2, 11) == (objective.weight(example), example.size)


def test_best_span_is_taken_over_all_windows(bert_dir):
    """The answer is the best span of any window; where every window prefers its first token, there is none."""
    objective = extractive(bert_dir, length=6, stride=2)
    row = {"context": "echo delta golf hotel india juliett foxtrot", "question": "user", "answers": ["juliett"]}
    (example,) = examples_of(objective, [row])

    class Scripted(torch.nn.Module):
        def __init__(self, bonus):
            super().__init__()
            self.bonus = bonus

        def forward(self, input_ids, attention_mask):
            juliett = objective.tokenizer.convert_tokens_to_ids("juliett")
            logits = (input_ids == juliett).float() * 5
            logits[:, 0] += self.bonus
            return type("Said", (), {"start_logits": logits, "end_logits": logits})

    with torch.no_grad():
        found, nothing = (objective.outcome(Scripted(bonus), [example]).predicted.tolist() for bonus in (4, 6))
    assert "juliett" == row["context"][slice(*found[0])]
    assert [[0, 0]] == nothing
    assert 1.0 == objective.score([example], [0.0], found)[MetricName.EVAL_EXACT_MATCH]


def test_spans_of_held_out_rows_are_found(bert_dir, tmp_path, recorder):
    """An encoder learns where answers stand and which questions have none, on contexts that were held out."""
    spec = job_spec(METHOD, n_epochs=14, learning_rate=0.01, batch_size=16, micro_batch_size=16)
    before, after = measured(run_job(spec, bert_dir, tmp_path, recorder, lines(asked_rows(300))))
    assert before[MetricName.EVAL_EXACT_MATCH] < 0.5
    assert 0.8 <= after[MetricName.EVAL_EXACT_MATCH]
    assert after[MetricName.EVAL_F1_CI_LOW] <= after[MetricName.EVAL_F1] <= after[MetricName.EVAL_F1_CI_HIGH]
    model = transformers.AutoModelForQuestionAnswering.from_pretrained(unpack(recorder, tmp_path / "out"))
    assert 2 == model.qa_outputs.out_features


def test_written_answers_of_held_out_rows_get_better(llama_dir, tmp_path, recorder):
    """A causal model learns to write the answers, by exact match and F1 of what it generates."""
    drawn = random.Random(2)
    contexts = [[drawn.choice(WORDS[:10]) for _ in range(3)] for _ in range(300)]
    rows = [{"context": " ".join(words), "question": "user", "answers": [words[0]]} for words in contexts]
    spec = job_spec(
        METHOD,
        GENERATIVE,
        n_epochs=12,
        learning_rate=0.01,
        max_seq_length=48,
        micro_batch_size=8,
        data={"evaluation_fraction": 0.3},
    )
    before, after = measured(run_job(spec, llama_dir, tmp_path, recorder, lines(rows)))
    assert before[MetricName.EVAL_EXACT_MATCH] < 0.2
    assert 0.9 <= after[MetricName.EVAL_EXACT_MATCH] <= after[MetricName.EVAL_F1]


@pytest.mark.parametrize("at", [2, 5])
@pytest.mark.parametrize("form", MODES)
def test_resume_is_exact_to_the_bit(bert_dir, llama_dir, tmp_path, new_recorder, form, at):
    """A job that was paused and resumed has the very losses and weights of one that never stopped."""
    folder = bert_dir if form == "extractive" else llama_dir
    settings = {"form": form, "max_answer_tokens": 2}
    spec = job_spec(METHOD, settings, n_epochs=2, max_seq_length=48)
    check_resume(spec, folder, tmp_path, new_recorder, lines(asked_rows(40)), at)


@pytest.mark.parametrize("form", MODES)
@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({"context": "alpha", "question": "user", "answers": "alpha"}, RowReason.WRONG_TYPE),
        ({"context": "alpha", "question": "user", "answers": [3]}, RowReason.WRONG_TYPE),
        ({"context": "alpha", "question": "user", "answers": [""]}, RowReason.EMPTY_TEXT),
        (
            {"context": "alpha", "question": "user", "answers": [{"text": "alpha", "answer_start": "0"}]},
            RowReason.WRONG_TYPE,
        ),
        ({"context": "alpha", "question": "user"}, RowReason.MISSING_KEY),
        ({"context": "alpha", "answers": []}, RowReason.MISSING_KEY),
        ({"question": "user", "answers": []}, RowReason.MISSING_KEY),
        ({"context": "alpha", "question": "user " * 40, "answers": ["alpha"]}, RowReason.TOO_LONG),
    ],
)
def test_wrong_rows_are_refused_by_number(bert_dir, llama_dir, tmp_path, recorder, form, bad, reason):
    """A row of another shape is refused with its number and the reason, before any training."""
    folder = bert_dir if form == "extractive" else llama_dir
    rows = lines([*asked_rows(2), bad])
    assert ((3, reason),) == refused(job_spec(METHOD, {"form": form}), folder, tmp_path, recorder, rows)


@pytest.mark.parametrize(
    "answer", ["golf", {"text": "alpha", "answer_start": 1}, {"text": "alpha", "answer_start": -5}]
)
def test_answers_that_the_context_lacks_are_refused(bert_dir, tmp_path, recorder, answer):
    """An answer that does not stand in its context, or not where the row says, is refused by number."""
    row = {"context": "alpha bravo", "question": "user", "answers": ["bravo", answer]}
    errors = refused(job_spec(METHOD), bert_dir, tmp_path, recorder, lines([row]))
    assert ((1, RowReason.ANSWER_NOT_FOUND),) == errors


def test_long_contexts_are_cut_or_refused_where_the_specification_says_so(bert_dir):
    """Truncate keeps the first window and counts the row, refuse refuses it."""
    row = {"context": "echo delta golf hotel india juliett foxtrot", "question": "user", "answers": ["juliett"]}
    (cut,) = examples_of(extractive(bert_dir, length=6, too_long="truncate"), [row])
    assert (True, 1, (0, 0)) == (cut.truncated, len(cut.windows), cut.windows[0].target)
    assert [RowReason.TOO_LONG] == examples_of(extractive(bert_dir, length=6, too_long="refuse"), [row])


def test_models_and_settings_of_the_wrong_kind_are_refused(bert_dir, llama_dir, tmp_path, recorder):
    """Spans need an encoder, written answers a causal model; a file without rows and an unknown form are refused."""
    rows = lines(asked_rows(9))
    for settings, folder, given, code in (
        ({}, llama_dir, rows, FailureCode.MODEL_INVALID),
        (GENERATIVE, bert_dir, rows, FailureCode.MODEL_INVALID),
        ({}, bert_dir, b"", FailureCode.TOO_FEW_ROWS),
        ({"form": "spoken"}, bert_dir, rows, FailureCode.SPEC_INVALID),
    ):
        with pytest.raises((TrainerError, SpecError)) as caught:
            run_job(job_spec(METHOD, settings), folder, tmp_path, recorder, given)
        assert code == caught.value.code
