# SPDX-License-Identifier: Apache-2.0
"""Replay rows of a model that goes on learning: what is signed of their split, and what is said where none is known."""

from __future__ import annotations

import json

import pytest
import yaml

from cloister.cli.exits import run
from cloister.cli.main import cli
from cloister.client import Client
from cloister.errors import UsageError
from cloister.evidence.errors import BindingError
from cloister.replay import earlier_split
from cloister.spec import read_spec, resolve

LORA = {"lora": {"rank": 4, "alpha": 8.0, "target_modules": ["query"]}}
NEXT = {"purpose": "routing", "method": {"classification": {}}}
ALL, WHOLE = (0.0, 0.0), (0.0, 1.0)
"""Trained on all rows; held out all of them."""


@pytest.fixture
def learn(site, spec, rows):
    """Runs a job to its end: on the base model, or on the version of another job."""
    client = site.client()
    values = spec()
    for name in ("march", "april", "may", "checks"):
        client.datasets.push(rows, name, ["routing"])

    def job(training, on=None, **more):
        start = {"model": on.id} if on else {"model": "minilm", "adapter": LORA}
        made = site.client().jobs.submit({**values, **start, "training_dataset": training, "suffix": "", **more})
        site.finish_job(made.id)
        return made

    return job


@pytest.fixture
def split_of(site):
    """Seed and fractions of the replay that a job on a version would sign; None for none."""

    def look(on, replay, **more):
        values = {**NEXT, "model": on.id, "training_dataset": "may", "replay_dataset": replay, **more}
        found = site.client().jobs.dry_run(values)
        split = found.spec.data.replay_split
        given = found.spec.data.HasField("replay_split")
        return (split.seed, split.validation_fraction, split.evaluation_fraction) if given else None

    return look


def test_the_split_is_that_of_the_job_that_trained_on_the_rows(learn, split_of):
    """Seed and fractions come from the signed specification of that job, however many jobs ago, not from this one."""
    first = learn("march", seed=7, data={"validation_fraction": 0.0, "evaluation_fraction": 0.3, "max_rows": 50})
    second = learn("april", first, seed=8, replay_dataset="march")
    assert (7, 0.0, 0.3) == split_of(first, "march", seed=9) == split_of(second, "march")
    assert (8, 0.1, 0.2) == split_of(second, "april")
    signed = json.loads(second.spec)["data"]["replay_split"]
    assert {"seed": "7", "validation_fraction": 0.0, "evaluation_fraction": 0.3, "max_rows": "50"} == signed


def test_a_job_that_measured_on_another_dataset_held_out_nothing(learn, split_of, site):
    """Then the split has no share, which is said; its evaluation dataset is measured whole and not trained on."""
    first = learn("march", evaluation_dataset="checks", data={"validation_fraction": 0.0})
    assert ALL == split_of(first, "march")[1:]
    assert WHOLE == split_of(first, "checks")[1:]
    values = {**NEXT, "model": first.id, "training_dataset": "may"}
    dry_run = site.client().jobs.dry_run
    assert "trained on all rows" in " ".join(dry_run({**values, "replay_dataset": "march"}).remarks)
    found = dry_run({**values, "replay_dataset": "checks"})
    assert (0.0, ()) == (found.spec.data.replay_ratio, found.remarks)
    with pytest.raises(UsageError, match="stays held out"):
        dry_run({**values, "replay_dataset": "checks", "data": {"replay_ratio": 0.1}})


def test_rows_that_two_jobs_split_differently_are_not_held_out(learn, split_of):
    """Between them the two have trained on any row; with one split of both, the rows held out are the same."""
    first = learn("march")
    assert ALL == split_of(learn("march", first, seed=7), "march")[1:]
    assert (42, 0.1, 0.2) == split_of(learn("march", first), "march")


def test_another_dataset_is_split_by_the_job_itself(learn, split_of, site):
    """A dataset that no earlier job names has no split; of an adapted version, that is said."""
    first = learn("march")
    assert split_of(first, "april") is None
    values = {**NEXT, "training_dataset": "may", "replay_dataset": "april"}
    adapted, base = (site.client().jobs.dry_run({**values, "model": model}) for model in (first.id, "minilm"))
    assert "no earlier job of" in " ".join(adapted.remarks)
    assert () == base.remarks


def test_a_split_is_not_the_members_to_make_up(learn, site):
    """A given split that is not the earlier jobs' is refused; a clone with another replay dataset gets its own."""
    first = learn("march", seed=7)
    second = learn("april", first, replay_dataset="march")
    values = {**NEXT, "model": first.id, "training_dataset": "may", "replay_dataset": "march"}
    with pytest.raises(UsageError, match="leave it out"):
        site.client().jobs.dry_run({**values, "data": {"replay_split": {"seed": 8, "evaluation_fraction": 0.2}}})
    cloned = site.client().jobs.clone(second.id, {"replay_dataset": "checks"})
    assert "replay_split" not in json.loads(cloned.spec)["data"]


def test_a_bent_specification_of_an_earlier_job_is_noticed(learn, split_of, site):
    """The split is read from what a member signed: another seed shown for the first job is refused."""
    first = learn("march")
    second = learn("april", first)
    site.jobs[first.id].spec = site.jobs[first.id].spec.replace(b'"seed":"42"', b'"seed":"43"')
    with pytest.raises(BindingError):
        split_of(second, "march")


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("debias", ALL), ("retrieval", None), ("reinforcement", (0.1, 0.2))],
)
def test_each_method_counts_by_what_it_trains_on(kind, expected):
    """De-biasing parts its rows in its own way, so none is known to be held out; an index trains nothing."""
    spec = read_spec({"model": "m", "training_dataset": "d", "purpose": "p", "method": {kind: {}}})
    spec.data.validation_fraction, spec.data.evaluation_fraction = 0.1, 0.2
    found = earlier_split("d", [spec])
    assert expected == (found and (found.validation_fraction, found.evaluation_fraction))


def test_a_replay_of_an_older_client_counts_by_its_own_split():
    """A job that replayed rows and signed no split trained on all but those that its own seed held out."""
    values = {"model": "m", "training_dataset": "d", "replay_dataset": "old", "purpose": "p"}
    spec = resolve(read_spec({**values, "seed": 5, "evaluation_dataset": "e", "method": {"supervised": {}}}))
    found = earlier_split("old", [spec])
    assert found is not None
    assert (5, 0.0, 0.2) == (found.seed, found.validation_fraction, found.evaluation_fraction)
    spec.data.replay_ratio = 0.0
    assert earlier_split("old", [spec]) is None


@pytest.fixture
def command(site, tmp_path, monkeypatch, capsys):
    """Runs `cloister job submit` or `tune`: standard output and standard error."""
    monkeypatch.setattr(Client, "open", lambda home: site.client(home.name))

    def submit(values, *options):
        (tmp_path / "spec.yaml").write_text(yaml.safe_dump(values))
        home = ("--home", str(site.homes["anna"].directory))
        assert 0 == run("cloister", cli, ["job", "submit", str(tmp_path / "spec.yaml"), *options, *home])
        return capsys.readouterr()

    return submit


def test_that_forgetting_will_not_be_measured_is_said(learn, command):
    """A job on an adapted version without a replay dataset says so in a dry run and when it is submitted, beside the
    job's id, with the dataset that could be named; one on a base model has nothing to forget of ours.
    """
    first = learn("march")
    values = {**NEXT, "model": first.id, "training_dataset": "may"}
    trained_on = json.loads(first.spec)["training_dataset"]
    for text in (command(values, "--dry-run").out, command(values).err):
        assert "is not measured" in text
        assert f"{trained_on}, as replay_dataset" in text
    assert "note" not in command(values).out
    assert "note" not in command({**values, "model": "minilm"}).err
    assert "note" not in command({**values, "replay_dataset": "march"}).err
    assert "reinforcement does not measure" in command({**values, "method": {"reinforcement": {}}}).err
