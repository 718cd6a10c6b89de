# SPDX-License-Identifier: Apache-2.0
"""What a dry run says of steps, memory and time, and of rows that are at hand."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import yaml

from cloister.cli.exits import run
from cloister.cli.main import cli
from cloister.cli.output import duration
from cloister.client import Client
from cloister.estimates import CPU, GPU, estimate, width_of
from cloister.spec import read_spec, resolve

MODEL_BYTES = 14_000_000_000
"""Seven thousand million 16-bit weights."""


def sealed(rows=None, size=0):
    """What an estimate reads of a verified object: its signed trailer."""
    return SimpleNamespace(trailer=SimpleNamespace(rows=rows, plaintext_size=size))


def start(size):
    return SimpleNamespace(base=sealed(size=size))


def estimated(method, rows=100, size=40_000, second=None, extra=None, **fields):
    values = {"model": "m", "training_dataset": "d", "purpose": "p", "method": method, **fields}
    spec = resolve(read_spec(values))
    return estimate(spec, start(MODEL_BYTES), {"training": sealed(rows, size), **(extra or {})}, second)


def test_steps_follow_splits_batches_and_epochs():
    """Of 100 rows 20 and 10 are held out; 70 in batches of 8 are 9 steps an epoch, and max_steps goes before that."""
    found = estimated({"supervised": {"hyperparameters": {"n_epochs": 2}}})
    assert (70, 18, 2 * 70 * 100) == (found.training_rows, found.steps, found.tokens)
    assert 5 == estimated({"supervised": {"hyperparameters": {"max_steps": 5}}}).steps


def test_named_parts_and_replay_are_counted():
    """Nothing is held out where datasets are named; earlier rows are mixed in by their ratio, as far as the job before
    trained on them.
    """
    named = {"validation_dataset": "v", "evaluation_dataset": "e"}
    extra = {"validation": sealed(10, 4_000), "evaluation": sealed(10, 4_000)}
    assert 100 == estimated({"supervised": {}}, extra=extra, **named).training_rows
    replayed = {"replay": sealed(1000, 400_000)}
    data = {"replay_ratio": 0.5, "validation_fraction": 0.0, "evaluation_fraction": 0.0}
    found = estimated({"supervised": {}}, extra=replayed, replay_dataset="r", data=data)
    assert 200 == found.training_rows
    split = {"seed": 1, "validation_fraction": 0.1, "evaluation_fraction": 0.2}
    data["replay_ratio"] = 0.9
    signed = {**data, "replay_split": split}
    found = estimated({"supervised": {}}, extra=replayed, replay_dataset="r", data=signed)
    assert 100 + 700 == found.training_rows


def test_long_rows_count_to_the_context():
    """A row is never more tokens than max_seq_length."""
    assert 3 * 70 * 1024 == estimated({"supervised": {}}, size=10**9).tokens


def test_memory_is_weights_learned_weights_and_activations():
    """By hand for full fine-tuning: 18 bytes a weight on a GPU and 16 on a CPU, and the activations beside."""
    method = {"supervised": {"hyperparameters": {"micro_batch_size": 1, "max_seq_length": 1000}}}
    weights = MODEL_BYTES // 2
    found = estimated(method, adapter={"full": {}})
    width = (64 * weights / 12) ** (1 / 3)
    per_token = 34 * width * width / 64
    expected = [weights * 18 + 1000 * per_token, weights * 16 + 1000 * 2 * per_token]
    assert pytest.approx(expected, rel=1e-6) == [cost.memory for cost in found.costs]
    assert weights == found.trained


def test_an_adapter_learns_few_weights():
    """Rank 8 on two matrices of each block, and what learns is all that has moments."""
    method = {"supervised": {"hyperparameters": {"micro_batch_size": 1, "max_seq_length": 1000}}}
    found = estimated(method)
    width = width_of(found.parameters)
    assert pytest.approx(4 * 8 * width * width / 64, rel=1e-6) == found.trained
    full = estimated(method, adapter={"full": {}})
    saved = (found.parameters - found.trained) * GPU.trained
    assert pytest.approx(saved, rel=1e-6) == full.costs[0].memory - found.costs[0].memory
    quantized = estimated(method, adapter={"lora": {"quantization": "nf4"}})
    assert quantized.costs[0].memory < found.costs[0].memory - found.parameters


def test_time_is_work_over_speed():
    """Six operations a weight and token in training, two in each of no evaluations, at the stated speed."""
    method = {"supervised": {"hyperparameters": {"n_epochs": 1, "n_evals": 0}}}
    found = estimated(method, adapter={"full": {}})
    work = 6 * found.parameters * 70 * 100
    assert pytest.approx([work / GPU.speed, work / CPU.speed], rel=1e-6) == [cost.seconds for cost in found.costs]


def test_references_and_teachers_are_further_work():
    """DPO scores its rows once more, and a teacher goes through every token and stands in memory."""
    method = {"hyperparameters": {"n_epochs": 1, "n_evals": 0}}
    plain = estimated({"preference": {"loss": "orpo", **method}}).costs[0].seconds
    paired = estimated({"preference": {"loss": "dpo", **method}}).costs[0].seconds
    assert pytest.approx(6 / 4) == paired / plain
    alone = estimated({"distillation": method}, auxiliary_model="t")
    taught = estimated({"distillation": method}, auxiliary_model="t", second=start(MODEL_BYTES))
    assert pytest.approx(6 / 4) == taught.costs[0].seconds / alone.costs[0].seconds
    assert MODEL_BYTES == taught.costs[0].memory - alone.costs[0].memory


def test_jobs_that_do_not_train_in_the_loop_have_none():
    """Retrieval learns nothing, and de-biasing trains as often as its mitigation asks for."""
    assert estimated({"retrieval": {}}, auxiliary_model="e") is None


@pytest.mark.parametrize(
    ("seconds", "expected"), [(0.5, "0.5 s"), (119, "119 s"), (600, "10 min"), (9_000, "2.5 h"), (400_000, "4.6 days")]
)
def test_durations_for_people(seconds, expected):
    """Seconds, minutes, hours and days."""
    assert expected == duration(seconds)


@pytest.fixture
def submit(site, monkeypatch, capsys, tmp_path):
    """Run `cloister job submit`: exit code, standard output, standard error."""
    monkeypatch.setattr(Client, "open", lambda home: site.client(home.name))

    def command(values, *options):
        (tmp_path / "spec.yaml").write_text(yaml.safe_dump(values))
        arguments = ["job", "submit", str(tmp_path / "spec.yaml"), *map(str, options)]
        code = run("cloister", cli, [*arguments, "--home", str(site.homes["anna"].directory)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return command


@pytest.fixture
def labelled(site, spec, tmp_path):
    """A specification whose dataset is a file at hand."""
    values = spec()
    path = tmp_path / "labelled.jsonl"
    path.write_text("".join(json.dumps({"text": f"t{n}", "label": "ab"[n % 2]}) + "\n" for n in range(20)))
    site.client().datasets.push(path, "labelled", ["routing"])
    return {**values, "training_dataset": "labelled"}, path


def test_the_command_shows_estimates_and_signs_nothing(submit, labelled, site):
    """Steps, memory and time are told as estimates, for people and for programs."""
    values, path = labelled
    code, out, err = submit(values, "--rows", path)
    assert 0 == code
    assert "20 rows are good" in err
    assert "at most 14 after the splits" in out
    assert "about, on a CPU" in out
    assert {} == site.jobs
    found = json.loads(submit(values, "--dry-run", "--json")[1])["estimate"]
    assert (14, 4, ["GPU", "CPU"]) == (found["training_rows"], found["steps"], [c["device"] for c in found["costs"]])


def test_a_dry_run_refuses_what_cannot_run(submit, labelled, site):
    """A specification that no host could run is refused by its setting, dry run or not, and nothing is signed."""
    values, _ = labelled
    impossible = {**values, "method": {"classification": {"problem_type": "multi_label", "class_weights": "balanced"}}}
    for options in (("--dry-run",), ()):
        code, out, err = submit(impossible, *options)
        assert (2, "") == (code, out)
        assert "class_weights is balanced with problem_type multi_label" in err
    assert {} == site.jobs


def test_documents_are_told_about(submit, labelled):
    """Steps that go by the lengths of texts are told as about so many, not as a bound."""
    values, _ = labelled
    assert "about 6" in submit({**values, "method": {"language_modeling": {}}}, "--dry-run")[1]
    assert "at most 6" in submit({**values, "method": {"supervised": {}}}, "--dry-run")[1]


def test_rows_that_the_method_does_not_take_are_told_by_number(submit, labelled):
    """The rows of a classification are no rows of supervised fine-tuning; nothing of them is repeated."""
    values, path = labelled
    code, out, err = submit({**values, "method": {"supervised": {}}}, "--dry-run", "--rows", path)
    assert (2, "") == (code, out)
    assert "20 of 20 rows are bad: line 1 (no text under prompt)" in err


def test_rows_of_another_file_are_noticed(submit, labelled, tmp_path):
    """A file that is not what was pushed says nothing about the job."""
    values, path = labelled
    other = tmp_path / "other.jsonl"
    other.write_text(path.read_text() + '{"text": "t", "label": "a"}\n')
    code, _, err = submit(values, "--dry-run", "--rows", other)
    assert 2 == code
    assert "21 rows are not those of labelled, which has 20" in err
