# SPDX-License-Identifier: Apache-2.0
"""Classification beyond one label of one text: pairs, class weights, several labels, numbers, causal models."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
import torch
import transformers
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import f1_score
from sklearn.utils.class_weight import compute_class_weight

from cloister_workers.errors import SpecError, TrainerError
from cloister_workers.messages import DatasetRole, FailureCode, MetricName, RowReason, Rows, SpecField
from cloister_workers.trainer.calibration import calibration_error
from cloister_workers.trainer.correlation import pearson, rmse, spearman
from cloister_workers.trainer.model import load_classifier, load_tokenizer
from cloister_workers.trainer.objectives.classification import Classification, balanced_weights
from cloister_workers.trainer.objectives.multi_label import MultiLabel
from cloister_workers.trainer.objectives.regression import OUTPUT, Regression
from cloister_workers.trainer.texts import TextReader
from tiny_models import WORDS, classification_rows
from trainer_jobs import check_resume, examples_of, job_spec, measured, refused, run_job, unpack

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
CPU = torch.device("cpu")
NAMES = WORDS[:10]
MULTI, REGRESSION = {"problem_type": "multi_label"}, {"problem_type": "regression"}


def lines(rows):
    return "\n".join(json.dumps(row) for row in rows).encode()


def texts(count):
    drawn = random.Random(1)
    return [" ".join(drawn.choice(NAMES) for _ in range(4)) for _ in range(count)]


def multi_rows(count):
    """The labels are those of the first three words that occur."""
    return lines(
        {"text": text, "labels": [name for name in NAMES[:3] if name in text.split()]} for text in texts(count)
    )


def number_rows(count):
    """The label is 1 where the first word occurs, and a little more where the second does."""
    return lines({"text": text, "label": ("alpha" in text) + 0.5 * ("bravo" in text)} for text in texts(count))


def pair_rows(count):
    """The label says whether the second text is the first word, which is seldom so."""
    seconds = [NAMES[number % 4] for number in range(count)]
    pairs = zip(texts(count), seconds, strict=True)
    return lines({"text": text, "text_pair": second, "label": int(second == "alpha")} for text, second in pairs)


def read(objective, rows):
    return examples_of(objective, [json.loads(line) for line in rows.splitlines()])


@pytest.fixture(scope="module")
def tokenizer(bert_dir):
    return load_tokenizer(str(bert_dir), padded=True)


def test_weighted_loss_is_that_of_torch(bert_dir, tokenizer):
    """With balanced weights, sklearn's, the loss of a step is torch's weighted cross-entropy, and their mean is 1."""
    plain = Classification(tokenizer, 32, 8, CPU)
    examples = read(plain, classification_rows(7))
    weights = balanced_weights([example.label for example in examples])
    labels = tuple(weights)
    true = [example.label for example in examples]
    expected = compute_class_weight("balanced", classes=np.array(labels), y=true)
    assert expected.tolist() == pytest.approx(list(weights.values()), abs=1e-12)
    assert 1.0 == pytest.approx(sum(weights[label] for label in true) / len(true))
    model = load_classifier(str(bert_dir), labels, 0, CPU).model.eval()
    objective = Classification(tokenizer, 32, 8, CPU, labels, weights=weights)
    sums = objective.outcome(model, examples).sums
    encoded = tokenizer(
        [" ".join(tokenizer.convert_ids_to_tokens(e.tokens)) for e in examples], padding=True, return_tensors="pt"
    )
    logits = model(input_ids=encoded["input_ids"], attention_mask=encoded["attention_mask"]).logits
    target = torch.tensor([labels.index(label) for label in true])
    loss = torch.nn.functional.cross_entropy(logits, target, weight=torch.tensor(list(weights.values())))
    total = sum([objective.weight(example) for example in examples])
    assert loss.item() == pytest.approx(float(sums.detach().sum()) / total, abs=1e-5)


@pytest.mark.parametrize("kind", ["multi_label", "regression"])
def test_losses_are_those_of_transformers(bert_dir, tokenizer, kind):
    """The mean loss of several labels, and of numbers, is that of transformers' own model for them."""
    reader = TextReader(tokenizer, 32)
    objective: MultiLabel | Regression
    if kind == "multi_label":
        objective = MultiLabel(reader, 8, CPU, tuple(NAMES[:3]))
        examples = read(objective, multi_rows(6))
        model = load_classifier(str(bert_dir), NAMES[:3], 0, CPU, "multi_label_classification").model.eval()
        true = torch.tensor([[float(name in example.classes) for name in NAMES[:3]] for example in examples])
    else:
        objective = Regression(reader, 8, CPU)
        examples = read(objective, number_rows(6))
        model = load_classifier(str(bert_dir), [OUTPUT], 0, CPU, "regression").model.eval()
        true = torch.tensor([example.value for example in examples])
    ids = torch.tensor([example.tokens.tolist() for example in examples])
    expected = model(input_ids=ids, labels=true).loss.item()
    assert expected == pytest.approx(float(objective.outcome(model, examples).sums.detach().mean()), abs=1e-5)


def test_figures_are_those_of_scipy_and_sklearn(tokenizer):
    """Correlations are scipy's, F1 of several labels sklearn's, and ties share their rank."""
    x, y = [0.1, 0.4, 0.4, 2.0, -1.0], [1.0, 3.0, 2.0, 2.5, 2.5]
    assert pearsonr(x, y)[0] == pytest.approx(pearson(x, y), abs=1e-12)
    assert spearmanr(x, y)[0] == pytest.approx(spearman(x, y), abs=1e-12)
    assert float(np.sqrt(np.mean((np.array(x) - y) ** 2))) == pytest.approx(rmse(x, y), abs=1e-12)
    assert 0.0 == pearson([1.0, 1.0], [1.0, 2.0])
    objective = MultiLabel(TextReader(tokenizer, 32), 8, CPU, tuple(NAMES[:3]))
    examples = read(objective, multi_rows(12))
    true = [[int(name in example.classes) for name in NAMES[:3]] for example in examples]
    said = [[1, 0, row[2]] for row in true]
    found = objective.score(examples, [0.0] * 12, said)
    assert f1_score(true, said, average="micro") == pytest.approx(found[MetricName.EVAL_MICRO_F1], abs=1e-12)
    assert f1_score(true, said, average="macro", zero_division=1) == pytest.approx(
        found[MetricName.EVAL_MACRO_F1], abs=1e-12
    )


def test_calibration_error_by_hand():
    """Fifteen bins of two rows each: a bin's gap is that of its mean confidence and its share of right answers."""
    assert 0.0 == calibration_error([1.0] * 30, [True] * 30)
    assert 0.5 == pytest.approx(calibration_error([0.5 + number * 1e-9 for number in range(30)], [True] * 30))
    # two rows a bin: 0.5 and 0.7 said, one right: |0.6 - 0.5|
    confidences = [value for number in range(15) for value in (0.5 + number * 1e-9, 0.5 + number * 1e-9 + 4e-10)]
    assert 0.0 == pytest.approx(calibration_error(confidences, [True, False] * 15), abs=1e-6)
    assert 0.2 == pytest.approx(calibration_error([0.8], [True]))


@pytest.mark.parametrize(
    ("settings", "make", "metric", "least"),
    [
        (MULTI, multi_rows, MetricName.EVAL_MICRO_F1, 0.9),
        (REGRESSION, number_rows, MetricName.EVAL_PEARSON, 0.9),
        ({"class_weights": "balanced"}, pair_rows, MetricName.EVAL_ACCURACY, 0.9),
    ],
)
def test_held_out_rows_get_better(bert_dir, tmp_path, recorder, settings, make, metric, least):
    """Several labels, numbers and pairs of texts are learned: the metric rises on texts that were held out."""
    spec = job_spec("classification", settings, n_epochs=12, learning_rate=0.01)
    before, after = measured(run_job(spec, bert_dir, tmp_path, recorder, make(300)))
    assert before[metric] < least <= after[metric]
    assert after[MetricName.EVAL_LOSS] < before[MetricName.EVAL_LOSS]


def test_causal_model_classifies(llama_dir, tmp_path, recorder):
    """A llama with an adapter learns to classify, measures its calibration, and plain transformers loads it merged."""
    adapter = {"lora": {"target_modules": ["q_proj", "v_proj"], "merge": True}}
    spec = job_spec("classification", n_epochs=8, adapter=adapter)
    before, after = measured(run_job(spec, llama_dir, tmp_path, recorder, classification_rows(150)))
    assert before[MetricName.EVAL_ACCURACY] < 0.9 <= after[MetricName.EVAL_ACCURACY]
    assert 0 <= after[MetricName.EVAL_CALIBRATION_ERROR] <= 1
    folder = unpack(recorder, tmp_path / "out")
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    assert 0 == model.config.pad_token_id


def test_padding_changes_no_logit_of_a_causal_model(llama_dir):
    """A causal classifier says the same of a text alone and beside a longer one."""
    tokenizer = load_tokenizer(str(llama_dir), padded=True)
    torch.manual_seed(1)
    model = load_classifier(str(llama_dir), ["no", "yes"], tokenizer.pad_token_id, CPU).model.eval()
    objective = Classification(tokenizer, 32, 8, CPU, ("no", "yes"))
    short, long = examples_of(
        objective, [{"text": "alpha bravo", "label": "no"}, {"text": "echo " * 9, "label": "yes"}]
    )
    alone, beside = objective.outcome(model, [short]).sums, objective.outcome(model, [short, long]).sums
    assert alone.tolist() == pytest.approx(beside.tolist()[:1], abs=1e-6)


def test_segments_of_pairs_reach_the_model(tokenizer, bert_dir):
    """For a tokenizer that tells them apart, the tokens of a pair's second text are of type 1."""
    typed = transformers.BertTokenizerFast(
        vocab={name: n for n, name in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *NAMES])}
    )
    (example,) = TextReader(typed, 32).encode([("alpha bravo", "charlie")])
    assert typed("alpha bravo", "charlie")["token_type_ids"] == list(example.segments)
    assert 1 == max(example.segments)


@pytest.mark.parametrize("at", [3, 8])
@pytest.mark.parametrize(
    ("settings", "make"), [(MULTI, multi_rows), (REGRESSION, number_rows), ({"class_weights": "balanced"}, pair_rows)]
)
def test_resume_is_exact_to_the_bit(bert_dir, tmp_path, new_recorder, settings, make, at):
    """A job that was paused and resumed has the very losses and weights of one that never stopped."""
    check_resume(job_spec("classification", settings, n_epochs=2), bert_dir, tmp_path, new_recorder, make(48), at)


@pytest.mark.parametrize(
    ("settings", "bad", "reason"),
    [
        (MULTI, {"text": "alpha"}, RowReason.MISSING_KEY),
        (MULTI, {"text": "alpha", "labels": "alpha"}, RowReason.WRONG_TYPE),
        (MULTI, {"text": "alpha", "labels": [None]}, RowReason.WRONG_TYPE),
        (MULTI, {"labels": ["alpha"]}, RowReason.MISSING_KEY),
        (REGRESSION, {"text": "alpha", "label": "1"}, RowReason.WRONG_TYPE),
        (REGRESSION, {"text": "alpha", "label": True}, RowReason.WRONG_TYPE),
        (REGRESSION, {"text": "alpha", "label": 10**400}, RowReason.WRONG_TYPE),
        (REGRESSION, {"text": "alpha"}, RowReason.MISSING_KEY),
        ({}, {"text": "alpha", "text_pair": 3, "label": "a"}, RowReason.WRONG_TYPE),
    ],
)
def test_wrong_rows_are_refused_by_number(bert_dir, tmp_path, recorder, settings, bad, reason):
    """A row of another shape is refused with its number and the reason, before any training."""
    good = {"text": "alpha", "label": 1, "labels": ["alpha"]}
    spec = job_spec("classification", settings)
    assert ((2, reason),) == refused(spec, bert_dir, tmp_path, recorder, lines([good, bad, good]))


def test_a_version_keeps_the_kind_of_its_classes(bert_dir, tmp_path, new_recorder):
    """A version of several labels a row is not trained on as one of one label; as what it is, it goes on."""
    made = run_job(job_spec("classification", MULTI), bert_dir, tmp_path, new_recorder(), multi_rows(40)).bundles[-1]
    rows = lines({"text": text, "label": NAMES[0]} for text in texts(40))
    with pytest.raises(SpecError) as caught:
        run_job(job_spec("classification"), bert_dir, tmp_path, new_recorder(), rows, layer=made)
    assert SpecField.PROBLEM_TYPE == caught.value.field
    run_job(job_spec("classification", MULTI), bert_dir, tmp_path, new_recorder(), multi_rows(40), layer=made)


def test_a_version_goes_on_with_rows_of_one_of_its_classes(bert_dir, tmp_path, new_recorder):
    """The classes are the version's, so new rows need not have two of them."""
    spec = job_spec("classification")
    made = run_job(spec, bert_dir, tmp_path, new_recorder(), classification_rows(40)).bundles[-1]
    rows = lines({"text": text, "label": "alpha"} for text in texts(20))
    assert run_job(spec, bert_dir, tmp_path, new_recorder(), rows, layer=made).losses()


def test_label_that_training_lacks_is_refused(bert_dir, tmp_path, recorder):
    """One of several labels that no training row has is refused in evaluation rows, by number."""
    evaluation = lines([{"text": "alpha", "labels": []}, {"text": "alpha", "labels": ["unheard"]}])
    errors = refused(
        job_spec("classification", MULTI), bert_dir, tmp_path, recorder, multi_rows(20), evaluation=evaluation
    )
    assert ((2, RowReason.UNKNOWN_LABEL),) == errors


def test_long_texts_are_cut_and_counted_or_refused(bert_dir, tmp_path, new_recorder):
    """A text of more than max_seq_length tokens is cut and counted, and refused where the specification says so."""
    rows = lines(
        [
            *({"text": text, "label": number % 2} for number, text in enumerate(texts(20))),
            {"text": "alpha " * 40, "label": 1},
        ]
    )
    whole = {"validation_fraction": 0.0, "evaluation_fraction": 0.0}
    told = run_job(job_spec("classification", data=whole, max_steps=1), bert_dir, tmp_path, new_recorder(), rows)
    assert 1 == next(message for message in told.messages if isinstance(message, Rows)).truncated
    spec = job_spec("classification", data={"too_long": "refuse"})
    assert ((21, RowReason.TOO_LONG),) == refused(spec, bert_dir, tmp_path, new_recorder(), rows)


@pytest.mark.parametrize("settings", [MULTI, REGRESSION, {}])
def test_empty_file_is_refused(bert_dir, tmp_path, recorder, settings):
    """A file without rows ends the job with a code that says so."""
    with pytest.raises(TrainerError) as caught:
        run_job(job_spec("classification", settings), bert_dir, tmp_path, recorder, b"")
    assert caught.value.code in (FailureCode.TOO_FEW_LABELS, FailureCode.TOO_FEW_ROWS)


@pytest.mark.parametrize(
    "settings",
    [{"problem_type": "many"}, {"class_weights": "some"}, {"problem_type": "regression", "class_weights": "balanced"}],
)
def test_settings_that_do_not_fit_are_refused(bert_dir, tmp_path, recorder, settings):
    """A kind of problem or of weights that is unknown, or weights of numbers, are SPEC_INVALID."""
    with pytest.raises(SpecError) as caught:
        run_job(job_spec("classification", settings), bert_dir, tmp_path, recorder, classification_rows(9))
    assert FailureCode.SPEC_INVALID == caught.value.code


@pytest.mark.parametrize(
    ("settings", "make", "metric"), [(MULTI, multi_rows, "eval_micro_f1"), (REGRESSION, number_rows, "eval_rmse")]
)
@pytest.mark.parametrize("adapter", [{"full": {}}, {"lora": {"target_modules": ["query", "value"]}}])
def test_version_is_trained_on(bert_dir, tmp_path, new_recorder, settings, make, metric, adapter):
    """A second job starts where the first ended, with its classes, and refuses another kind of problem."""
    spec = job_spec("classification", settings, n_epochs=2, adapter=adapter)
    first = run_job(spec, bert_dir, tmp_path, new_recorder(), make(60))
    second = run_job(spec, bert_dir, tmp_path, new_recorder(), make(60), layer=first.bundles[-1])
    assert measured(first)[1][metric] == pytest.approx(measured(second)[0][metric], abs=1e-5)
    if settings is REGRESSION:
        with pytest.raises(SpecError):
            run_job(
                job_spec("classification", adapter=adapter),
                bert_dir,
                tmp_path,
                new_recorder(),
                classification_rows(20),
                layer=first.bundles[-1],
            )


def test_texts_beyond_the_positions_are_cut(bert_dir, tmp_path, recorder):
    """A text with more tokens than the encoder has positions for is cut and counted, whatever max_seq_length says."""
    long = json.dumps({"text": " ".join(["alpha"] * 100), "label": "alpha"}).encode()
    spec = job_spec("classification", max_seq_length=512, n_epochs=1, data={"validation_fraction": 0.0})
    told = run_job(spec, bert_dir, tmp_path, recorder, classification_rows(20) + b"\n" + long, evaluation=long)
    counted = {message.dataset: message.truncated for message in told.messages if isinstance(message, Rows)}
    assert 1 == counted[DatasetRole.EVALUATION]
