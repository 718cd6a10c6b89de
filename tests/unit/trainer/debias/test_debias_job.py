# SPDX-License-Identifier: Apache-2.0
"""A whole de-biasing job in this process: on a classifier that an earlier job made, from its bundle to the report."""

from __future__ import annotations

import io
import json
import re
from typing import BinaryIO

import pytest
import torch

from cloister.gate import Gate
from cloister_workers.errors import Cancelled, Paused, RowsRefused, SpecError, TrainerError
from cloister_workers.messages import (
    Checkpoint,
    DatasetRole,
    Figure,
    Finding,
    Judged,
    Report,
    Result,
    RowErrors,
)
from cloister_workers.trainer import job
from cloister_workers.trainer.bundle import read_bundle, write_bundle
from cloister_workers.trainer.debias.job import run_debias
from cloister_workers.trainer.debias.mitigation import Refused
from cloister_workers.trainer.debias.spec import parse_debias
from cloister_workers.trainer.failures import failure_of
from cloister_workers.trainer.place import Workplace
from cloister_workers.trainer.spec import parse_spec
from cloister_workers.words import (
    FailureCode,
    FigureKind,
    FigureName,
    MetricName,
    RefusalReason,
    SpecField,
    Stage,
    Verdict,
)
from skewed_notes import notes, write_notes_bert

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
CPU = torch.device("cpu")
TRAINING = notes(400, skew=0.95, seed=1)
EVALUATION = notes(500, skew=0.5, seed=2)
GATE = Gate(draws=400)


def debias_spec(mitigation=None, **changes):
    body = {
        "task": "classifier",
        "axes": ["gender"],
        "mitigation": mitigation or {"name": "counterfactual"},
        "measures": ["flip_rate", "equalized_odds"],
        "primary": ["flip_rate"],
        "utilities": ["accuracy"],
        "hyperparameters": {"n_epochs": 8, "batch_size": 16, "learning_rate": 0.01, "max_seq_length": 32},
        **changes,
    }
    data = {"validation_fraction": 0.1, "evaluation_fraction": 0.0}
    return parse_debias({"model": "a-version-id", "seed": "5", "data": data, "method": {"debias": body}})


def place_at(folder, scratch):
    ticks = iter(range(1_000_000))
    return Workplace(str(folder), str(scratch), CPU, lambda: float(next(ticks)))


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A tiny encoder whose tokenizer knows the words of the notes."""
    return write_notes_bert(tmp_path_factory.mktemp("notes-bert"))


@pytest.fixture(scope="module")
def classifier(base, tmp_path_factory, new_recorder):
    """The files of a classifier that the product's own training made of skewed notes."""
    spec = parse_spec(
        {
            "model": "notes",
            "seed": "5",
            "data": {"validation_fraction": 0.0, "evaluation_fraction": 0.0},
            "method": {
                "classification": {"hyperparameters": {"n_epochs": 6, "max_seq_length": 32, "learning_rate": 0.01}}
            },
            "adapter": {"lora": {"target_modules": ["query", "value"]}},
        }
    )
    recorder = new_recorder()
    job.run_job(
        spec, {DatasetRole.TRAINING: io.BytesIO(TRAINING)}, place_at(base, tmp_path_factory.mktemp("s")), recorder
    )
    return read_bundle(io.BytesIO(recorder.bundles[-1]))


def run(base, scratch, classifier, recorder, spec=None, **inputs):
    given = {"training": TRAINING, "evaluation": EVALUATION, **inputs}
    streams: dict[DatasetRole, BinaryIO] = {DatasetRole(name): io.BytesIO(content) for name, content in given.items()}
    descriptor = write_bundle(classifier)
    with open(descriptor, "rb") as layer:  # noqa: PTH123 - a descriptor
        streams[DatasetRole.LAYER] = layer
        run_debias(spec or debias_spec(), GATE, streams, place_at(base, scratch), recorder)
    return recorder


def told(recorder, kind):
    return [message for message in recorder.messages if isinstance(message, kind)]


@pytest.fixture(scope="module")
def finished(base, classifier, tmp_path_factory, new_recorder):
    """One whole job."""
    return run(base, tmp_path_factory.mktemp("s"), classifier, new_recorder())


def handed_over(recorder, kind):
    """The bundle that came with the message of this kind, as files."""
    brought = [message for message in recorder.messages if isinstance(message, Checkpoint | Report | Result)]
    place = next(place for place, message in enumerate(brought) if isinstance(message, kind))
    return read_bundle(io.BytesIO(recorder.bundles[place]))


def test_stages_come_in_order_and_the_report_before_the_result(finished):
    """Validate, evaluate, mitigate, evaluate, judge, export; then the report, then the result as the last word."""
    stages = [entry[0] for entry in finished.messages if isinstance(entry, tuple) and isinstance(entry[0], Stage)]
    names = [stage for stage, again in zip(stages[::2], stages[1::2], strict=True) if stage is again]
    wanted = [Stage.VALIDATE, Stage.EVALUATE, Stage.MITIGATE, Stage.EVALUATE, Stage.JUDGE, Stage.EXPORT]
    assert names == wanted
    kinds = [type(message) for message in finished.messages if isinstance(message, Report | Result)]
    assert kinds == [Report, Result]
    assert isinstance(finished.messages[-1], Result)


def test_counterfactual_training_lowers_the_flip_rate_of_a_skewed_classifier(finished):
    """The flip rate is high before and near zero after, and the paired interval excludes no change."""
    flips = next(f for f in told(finished, Figure) if (f.kind, f.index, f.group) == (FigureKind.MEASURE, 0, 0))
    assert flips.values[FigureName.BEFORE] > 0.1
    assert flips.values[FigureName.AFTER] < 0.03
    assert flips.values[FigureName.CHANGE_HIGH] < 0


def test_the_signed_metrics_hold_the_verdict_and_the_accuracy(finished):
    """The result's verdict is the judged one as a number, beside the accuracy after."""
    verdict = told(finished, Judged)[0].verdict
    result = told(finished, Result)[0]
    numbers = {Verdict.PASS: 1.0, Verdict.INCONCLUSIVE: 0.0, Verdict.FAIL: -1.0}
    assert result.metrics[MetricName.DEBIAS_VERDICT] == numbers[verdict]
    assert result.metrics[MetricName.EVAL_ACCURACY] > 0.8


def test_report_and_numeric_twin_say_the_same(finished):
    """Every figure of the twin stands in the report at the place that its indices name."""
    report = json.loads(handed_over(finished, Report)["report.json"])
    figures = [f for f in told(finished, Figure) if f.kind is FigureKind.MEASURE and f.group == 0]
    assert len(figures) == len(report["measures"]) == 2
    for figure, entry in zip(figures, report["measures"], strict=True):
        assert ["flip_rate", "equalized_odds"][figure.index] == entry["name"]
        assert figure.values[FigureName.AFTER] == entry["after"]["value"]
        assert figure.values[FigureName.CHANGE_HIGH] == entry["change"]["high"]
        assert figure.items == entry["items"]
        assert figure.values[FigureName.OVERLAP] == entry["overlap"] == 0
    rows = next(f for f in told(finished, Figure) if f.kind is FigureKind.JOB)
    counts = report["counts"]
    assert rows.items == counts["fit_rows"] + counts["validation_rows"] == 400
    assert rows.values[FigureName.LEFT_OUT] == counts["left_out_rows_that_name_a_test_word"] == 0
    assert rows.values[FigureName.CROSSING] == counts["kept_rows_that_name_a_test_word"] == 0
    assert told(finished, Judged)[0].verdict.value == report["verdict"]
    assert len(told(finished, Finding)) == len(report["findings"])


def test_no_message_and_no_report_holds_a_text_or_a_person(finished):
    """Nothing of a row is in what leaves the trainer, but group names in the sealed report."""
    page = handed_over(finished, Report)["report.html"].decode() + repr(finished.messages)
    assert not re.search(r"seems|grumpy|punctual|p2-", page)


def test_the_exported_adapter_is_the_one_that_was_measured(finished, base, classifier, tmp_path):
    """Plain peft loads the export, and its decisions flip as rarely as the report says."""
    import peft
    import transformers

    files = handed_over(finished, Result)
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    assert files["adapter_model.safetensors"] != classifier["adapter_model.safetensors"]
    assert json.loads(files["adapter_config.json"])["base_model_name_or_path"] == "notes"
    tokenizer = transformers.AutoTokenizer.from_pretrained(base)
    plain = transformers.AutoModelForSequenceClassification.from_pretrained(base, num_labels=2)
    model = peft.PeftModel.from_pretrained(plain, str(tmp_path)).eval()
    texts = [json.loads(line)["text"] for line in EVALUATION.splitlines()]
    other = [re.sub(r"\b(she|he)\b", lambda m: {"he": "she", "she": "he"}[m[0]], text) for text in texts]
    with torch.no_grad():
        one, two = (
            model(**tokenizer(texts, return_tensors="pt", padding=True)).logits.argmax(-1) for texts in (texts, other)
        )
    flips = next(f for f in told(finished, Figure) if (f.kind, f.group) == (FigureKind.MEASURE, 0))
    assert float((one != two).double().mean()) == pytest.approx(flips.values[FigureName.AFTER])


def test_a_resumed_job_ends_like_one_that_never_stopped(base, classifier, tmp_path, new_recorder):
    """Paused in the middle of mitigation and resumed from its checkpoint, the export is the same to the bit."""
    spec = debias_spec(hyperparameters={"n_epochs": 2, "max_seq_length": 32, "learning_rate": 0.01})
    whole = run(base, tmp_path, classifier, new_recorder(), spec)
    stopped = new_recorder()
    stopped.pause_at = 9
    with pytest.raises(Paused):
        run(base, tmp_path, classifier, stopped, spec)
    again = run(base, tmp_path, classifier, new_recorder(), spec, checkpoint=stopped.bundles[-1])
    assert handed_over(again, Result) == handed_over(whole, Result)
    assert told(again, Figure) == told(whole, Figure)


def test_further_seeds_are_shown_and_release_nothing(base, classifier, tmp_path, new_recorder):
    """Two seeds give two verdicts and one result, which is that of the first."""
    spec = {"hyperparameters": {"n_epochs": 1, "max_seq_length": 32, "learning_rate": 0.01}}
    once = run(base, tmp_path, classifier, new_recorder(), debias_spec(**spec))
    twice = run(base, tmp_path, classifier, new_recorder(), debias_spec(seeds=2, **spec))
    assert [message.run for message in told(twice, Judged)] == [0, 1]
    assert handed_over(twice, Result) == handed_over(once, Result)
    assert len(json.loads(handed_over(twice, Report)["report.json"])["robustness"]) == 2


def test_erasure_on_skewed_rows_is_refused_before_anything_is_measured(base, classifier, tmp_path, recorder):
    """Where the group tells the label, erasing the group would erase the task: the job ends with that reason."""
    with pytest.raises(Refused) as refused:
        run(base, tmp_path, classifier, recorder, debias_spec({"name": "erasure"}))
    said = failure_of(refused.value)
    assert (said.code, said.refusal) == (FailureCode.MITIGATION_REFUSED, RefusalReason.PROTECTED_LABEL_LINK)
    assert told(recorder, Figure) == []


def test_a_bar_above_the_policys_is_refused(base, classifier, tmp_path, recorder):
    """A team may tighten a bar and never widen it."""
    with pytest.raises(SpecError) as refused:
        run(base, tmp_path, classifier, recorder, debias_spec(bars={"flip_rate": 0.5}))
    assert refused.value.field is SpecField.BARS


def test_a_label_that_the_classifier_does_not_know_is_told_by_row_number(base, classifier, tmp_path, recorder):
    """Row 2 of the evaluation rows has another label: it is told by number and the job ends."""
    bad = EVALUATION.splitlines()
    bad[1] = bad[1].replace(b'"label": "no"', b'"label": "maybe"')
    with pytest.raises(RowsRefused):
        run(base, tmp_path, classifier, recorder, evaluation=b"\n".join(bad))
    assert [entry[0] for entry in told(recorder, RowErrors)[0].errors] == [2]


def test_rows_without_groups_or_swaps_leave_nothing_to_measure(base, classifier, tmp_path, recorder):
    """Without one primary measure the job ends before it trains, and says so."""
    plain = b"\n".join(json.dumps({"text": f"note {n} seems calm", "label": "yes"}).encode() for n in range(40))
    with pytest.raises(TrainerError) as failed:
        run(base, tmp_path, classifier, recorder, evaluation=plain)
    assert failed.value.code is FailureCode.NOTHING_MEASURED


def test_a_cancelled_job_stops_while_it_measures(base, classifier, tmp_path, recorder):
    """Measuring looks at the control socket too."""
    recorder.cancel_at = 0
    with pytest.raises(Cancelled):
        run(base, tmp_path, classifier, recorder)
    assert told(recorder, Result) == []


def test_a_base_model_without_a_trained_head_is_refused(base, tmp_path, recorder):
    """De-biasing starts from a classifier: an encoder without a head has no decisions to measure."""
    streams = {DatasetRole.TRAINING: io.BytesIO(TRAINING)}
    with pytest.raises(TrainerError) as failed:
        run_debias(debias_spec(), GATE, streams, place_at(base, tmp_path), recorder)
    assert failed.value.code is FailureCode.MODEL_INVALID
