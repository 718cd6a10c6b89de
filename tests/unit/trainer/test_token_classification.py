# SPDX-License-Identifier: Apache-2.0
"""Token classification: entities as CoNLL counts them, the loss, learning, resume, refusals."""

from __future__ import annotations

import itertools
import json
import random

import numpy as np
import pytest
import seqeval.metrics
import torch
import transformers

from cloister_workers.errors import TrainerError
from cloister_workers.messages import FailureCode, MetricName, RowReason, Rows
from cloister_workers.trainer import entities
from cloister_workers.trainer.model import load_tagger, load_tokenizer
from cloister_workers.trainer.objectives.token_classification import TokenClassification, _shares, word_space
from tiny_models import WORDS
from trainer_jobs import check_resume, examples_of, job_spec, measured, refused, run_job, unpack

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
CPU = torch.device("cpu")
TAGS = ("B-PLACE", "I-PLACE", "B-NAME", "O")
METHOD = "token_classification"


def tagged_rows(count, seed=1):
    """`alpha bravo` is a place, `charlie` a name, the other words are nothing."""
    drawn = random.Random(seed)
    rows = []
    for _ in range(count):
        tokens, tags = [], []
        for _ in range(drawn.randint(2, 5)):
            piece = drawn.choice([["alpha", "bravo"], ["charlie"], [drawn.choice(WORDS[3:10])]])
            tokens += piece
            tags += {"alpha": ["B-PLACE", "I-PLACE"], "charlie": ["B-NAME"]}.get(piece[0], ["O"])
        rows.append(json.dumps({"tokens": tokens, "tags": tags}))
    return "\n".join(rows).encode()


def test_entities_are_those_of_seqeval():
    """Precision, recall and F1 of random tags, IOB1 and broken ones among them, are those of seqeval."""
    drawn = random.Random(3)
    names = ["O", "B-A", "I-A", "B-B", "I-B"]
    true, said = ([[drawn.choice(names) for _ in range(drawn.randint(1, 9))] for _ in range(200)] for _ in range(2))
    said = [(line * 9)[: len(other)] for line, other in zip(said, true, strict=True)]
    right, claimed, there = map(
        sum, zip(*itertools.starmap(entities.counts, zip(said, true, strict=True)), strict=True)
    )
    precision, recall, f1, _ = (float(share[0]) for share in _shares(np.array([[right, claimed, there, 0.0, 1.0]])))
    assert seqeval.metrics.precision_score(true, said) == pytest.approx(precision, abs=1e-12)
    assert seqeval.metrics.recall_score(true, said) == pytest.approx(recall, abs=1e-12)
    assert seqeval.metrics.f1_score(true, said) == pytest.approx(f1, abs=1e-12)


def test_entity_ends_where_another_begins():
    """A B- ends the entity before it, an I- of another type begins one, and one may reach to the end."""
    assert {("A", 0, 1), ("A", 1, 3), ("B", 3, 4)} == entities.entities(["B-A", "B-A", "I-A", "I-B"])
    assert {("A-B", 1, 2)} == entities.entities(["O", "I-A-B", "O"])


def test_loss_is_that_of_transformers(bert_dir):
    """The loss, first sub-tokens alone, is that of transformers' own model with -100 elsewhere."""
    tokenizer = load_tokenizer(str(bert_dir), padded=True)
    objective = TokenClassification(tokenizer, 32, 8, CPU, TAGS)
    # the word-level tokenizer makes three tokens of `alpha:bravo`
    rows = [{"tokens": ["alpha:bravo", "charlie"], "tags": ["B-PLACE", "O"]}, {"tokens": ["echo"], "tags": ["B-NAME"]}]
    examples = examples_of(objective, rows)
    model = load_tagger(str(bert_dir), TAGS, CPU).model.eval()
    ids = torch.tensor([examples[0].tokens.tolist(), examples[1].tokens.tolist() + [0] * 3])
    labels = torch.tensor([[0, -100, -100, 3], [2, -100, -100, -100]])
    expected = model(input_ids=ids, attention_mask=(ids != 0).long(), labels=labels).loss.item()
    total = sum([objective.weight(example) for example in examples])
    assert expected == pytest.approx(float(objective.outcome(model, examples).sums.detach().sum()) / total, abs=1e-5)


@pytest.mark.parametrize("adapter", [{"full": {}}, {"lora": {"target_modules": ["query", "value"]}}])
def test_entities_of_held_out_rows_are_found(bert_dir, tmp_path, recorder, adapter):
    """Entities of rows that were held out are found after training, with an interval around F1."""
    before, after = measured(
        run_job(job_spec(METHOD, n_epochs=6, adapter=adapter), bert_dir, tmp_path, recorder, tagged_rows(120))
    )
    assert before[MetricName.EVAL_F1] < 0.6
    assert 0.9 <= after[MetricName.EVAL_F1]
    for figure in (
        MetricName.EVAL_F1,
        MetricName.EVAL_PRECISION,
        MetricName.EVAL_RECALL,
        MetricName.EVAL_TOKEN_ACCURACY,
    ):
        low, high = (after[MetricName(f"{figure}_ci_{end}")] for end in ("low", "high"))
        assert low <= after[figure] <= high


def test_export_loads_with_plain_transformers(bert_dir, tmp_path, recorder):
    """A trained tagger is a plain transformers directory that knows its tags and finds what training found."""
    run_job(job_spec(METHOD, n_epochs=6), bert_dir, tmp_path, recorder, tagged_rows(120))
    folder = unpack(recorder, tmp_path / "out")
    model = transformers.AutoModelForTokenClassification.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    encoded = tokenizer("delta alpha bravo charlie", return_tensors="pt")
    said = model(input_ids=encoded["input_ids"]).logits.argmax(-1)[0].tolist()
    assert ["O", "B-PLACE", "I-PLACE", "B-NAME"] == [model.config.id2label[index] for index in said]


@pytest.mark.parametrize("at", [2, 7])
def test_resume_is_exact_to_the_bit(bert_dir, tmp_path, new_recorder, at):
    """A job that was paused and resumed has the very losses and weights of one that never stopped."""
    check_resume(job_spec(METHOD, n_epochs=2), bert_dir, tmp_path, new_recorder, tagged_rows(60), at)


def test_words_beyond_the_cut_are_missed_and_counted(bert_dir, tmp_path, recorder):
    """What a cut takes away is no label of the loss, and its entities count as missed; the row is counted."""
    tokenizer = load_tokenizer(str(bert_dir), padded=True)
    objective = TokenClassification(tokenizer, 4, 8, CPU, TAGS)
    row = {"tokens": ["delta", "charlie", "delta", "delta", "charlie"], "tags": ["O", "B-NAME", "O", "O", "B-NAME"]}
    (example,) = examples_of(objective, [row])
    assert (True, 4) == (example.truncated, objective.weight(example))
    found = objective.score([example], [0.0], [[3, 2, 3, 3]])
    assert 0.5 == found[MetricName.EVAL_RECALL]
    assert 1.0 == found[MetricName.EVAL_PRECISION]
    assert 0.8 == pytest.approx(found[MetricName.EVAL_TOKEN_ACCURACY])
    whole = {"validation_fraction": 0.0, "evaluation_fraction": 0.0}
    spec = job_spec(METHOD, max_steps=1, max_seq_length=4, data=whole)
    told = run_job(spec, bert_dir, tmp_path, recorder, json.dumps(row).encode())
    assert 1 == next(message for message in told.messages if isinstance(message, Rows)).truncated


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({"tokens": ["alpha"], "tags": ["O", "O"]}, RowReason.LENGTH_MISMATCH),
        ({"tokens": ["alpha"], "tags": [1]}, RowReason.WRONG_TYPE),
        ({"tokens": "alpha", "tags": ["O"]}, RowReason.WRONG_TYPE),
        ({"tokens": [], "tags": []}, RowReason.EMPTY_TEXT),
        ({"tokens": [" "], "tags": ["O"]}, RowReason.EMPTY_TEXT),
        ({"tokens": ["alpha"], "tags": ["NAME"]}, RowReason.BAD_TAG),
        ({"tokens": ["alpha"], "tags": ["B-"]}, RowReason.BAD_TAG),
        ({"tokens": ["alpha"]}, RowReason.MISSING_KEY),
        ({"tags": ["O"]}, RowReason.MISSING_KEY),
    ],
)
def test_wrong_rows_are_refused_by_number(bert_dir, tmp_path, recorder, bad, reason):
    """A row of another shape is refused with its number and the reason, before any training."""
    rows = tagged_rows(3) + b"\n" + json.dumps(bad).encode()
    assert ((4, reason),) == refused(job_spec(METHOD), bert_dir, tmp_path, recorder, rows)


def test_unknown_tags_and_long_rows_are_refused_by_number(bert_dir, tmp_path, new_recorder):
    """A tag that training lacks, and where the specification says so a row that is too long, are row errors."""
    unheard = json.dumps({"tokens": ["alpha"], "tags": ["B-UNHEARD"]}).encode()
    errors = refused(job_spec(METHOD), bert_dir, tmp_path, new_recorder(), tagged_rows(9), evaluation=unheard)
    assert ((1, RowReason.UNKNOWN_LABEL),) == errors
    long = json.dumps({"tokens": ["alpha"] * 40, "tags": ["O"] * 40}).encode()
    spec = job_spec(METHOD, data={"too_long": "refuse"})
    assert ((1, RowReason.TOO_LONG),) == refused(spec, bert_dir, tmp_path, new_recorder(), long)


def test_causal_model_and_empty_file_are_refused(bert_dir, llama_dir, tmp_path, recorder):
    """A model that does not see both sides of a word is MODEL_INVALID, a file without rows TOO_FEW_LABELS."""
    for folder, rows, code in (
        (llama_dir, tagged_rows(9), FailureCode.MODEL_INVALID),
        (bert_dir, b"", FailureCode.TOO_FEW_LABELS),
    ):
        with pytest.raises(TrainerError) as caught:
            run_job(job_spec(METHOD), folder, tmp_path, recorder, rows)
        assert code == caught.value.code


def test_words_of_byte_level_tokenizers_keep_their_space(bert_dir):
    """A byte-level tokenizer gets each word with the space that it has in a sentence; a word-level one needs none."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    bytewise = Tokenizer(models.BPE())
    bytewise.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    bytewise.train_from_iterator(["alpha bravo charlie " * 9], trainer)
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=bytewise)
    objective = TokenClassification(tokenizer, 32, 8, CPU, TAGS, space=word_space(tokenizer))
    (example,) = examples_of(objective, [{"tokens": ["alpha", "bravo"], "tags": ["B-PLACE", "I-PLACE"]}])
    assert tokenizer("alpha bravo")["input_ids"] == example.tokens.tolist()
    assert "" == word_space(load_tokenizer(str(bert_dir)))
