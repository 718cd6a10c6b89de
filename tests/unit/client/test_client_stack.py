# SPDX-License-Identifier: Apache-2.0
"""Stacks, replay rows, second models, and reports of jobs that make no version: what is signed and believed."""

from __future__ import annotations

import dataclasses
import json

import pytest

from cloister.api.v1 import models_pb2
from cloister.cli.exits import run
from cloister.cli.main import cli
from cloister.client import Client
from cloister.errors import UsageError
from cloister.evidence.authorisation import Authorisation
from cloister.evidence.errors import BindingError, PolicyError
from cloister.evidence.manifest import Manifest
from cloister.reports import PAGE_START
from cloister.sealed.errors import SealedError
from debias_job import sha256
from memory_report import end_with_report

INDEX = {"retrieval.json": b"{}", "index.safetensors": b"vectors"}
PAGE = {"report.html": PAGE_START + b"<p>", "report.json": b"{}"}
ANSWERS = {"predictions.jsonl": b'{"row":1}\n'}
LORA = {"rank": 4, "alpha": 8.0, "target_modules": ["query"]}


def signed_by(job):
    return Authorisation.parse(job.authorisation.payload)


def own(site, job_id):
    return Manifest.parse(site.versions[job_id].sealed.manifest).id


def named(references):
    return [reference.id for reference in references]


@pytest.fixture
def adapted(site, spec):
    """A version with an adapter."""
    job = site.client().jobs.submit({**spec(), "adapter": {"lora": LORA}})
    site.finish_job(job.id)
    return job


@pytest.fixture
def indexed(site, adapted, spec):
    """A version with an index on top of the adapter."""
    job = site.client().jobs.submit({**spec(), "model": adapted.id, "suffix": "indexed"})
    site.finish_job(job.id, INDEX)
    return job


def test_a_stack_is_signed_whole_and_in_order(site, adapted, indexed, spec):
    """A job on a stack names every layer; a newer adapter takes the older one's place below the index."""
    client = site.client()
    third = client.jobs.submit({**spec(), "model": indexed.id, "suffix": "third"})
    assert [own(site, adapted.id), own(site, indexed.id)] == named(signed_by(third).model_layers)
    site.finish_job(third.id)
    fourth = client.jobs.submit({**spec(), "model": "third", "suffix": "fourth"})
    assert [own(site, third.id), own(site, indexed.id)] == named(signed_by(fourth).model_layers)


def test_the_adapter_below_an_index_keeps_its_shape(site, indexed, spec):
    """What the adapter looks like is read from the job that made it, not from the one that added the index."""
    job = site.client().jobs.submit({**spec(), "model": indexed.id, "suffix": "third"})
    assert LORA["target_modules"] == json.loads(job.spec)["adapter"]["lora"]["target_modules"]


def hidden(layers):
    del layers[0]


def swapped(layers):
    layers[0].sealed.CopyFrom(layers[1].sealed)


@pytest.mark.parametrize("lie", [hidden, swapped])
def test_a_layer_cannot_be_hidden_or_swapped(site, adapted, indexed, spec, lie):
    """The layers that a job started from are those that its member signed."""
    shown = site.versions[adapted.id].layers
    shown.append(site.versions[indexed.id].layers[-1])
    lie(shown)
    with pytest.raises(BindingError):
        site.client().jobs.submit({**spec(), "model": indexed.id})


def test_the_control_planes_word_on_kinds_counts_for_nothing(site, adapted, indexed, spec):
    """A layer that is called something else is still what its host signed."""
    for version in (adapted.id, indexed.id):
        for layer in site.versions[version].layers:
            layer.kind = models_pb2.LAYER_KIND_DEMONSTRATIONS
    third = site.client().jobs.submit({**spec(), "model": indexed.id})
    assert [own(site, adapted.id), own(site, indexed.id)] == named(signed_by(third).model_layers)


def test_a_second_model_is_signed_as_base_and_weights(site, adapted, indexed, spec):
    """Of a version with an index its adapter alone is opened; a base model has no layers."""
    client = site.client()
    job = client.jobs.submit({**spec(), "auxiliary_model": "indexed", "suffix": "student"})
    signed = signed_by(job)
    assert (signed_by(adapted).model, [own(site, adapted.id)]) == (signed.auxiliary, named(signed.auxiliary_layers))
    assert indexed.id == json.loads(job.spec)["auxiliary_model"]
    plain = signed_by(client.jobs.submit({**spec(), "auxiliary_model": json.loads(adapted.spec)["model"]}))
    assert (signed_by(adapted).model, ()) == (plain.auxiliary, plain.auxiliary_layers)


def test_replay_rows_are_signed_and_are_no_training_rows(site, spec, rows):
    """The replay dataset is bound by its trailer; it may not be the one that is trained on."""
    client = site.client()
    client.datasets.push(rows, "earlier", ["routing"])
    job = client.jobs.submit({**spec(), "replay_dataset": "earlier"})
    replay = signed_by(job).replay
    assert replay is not None
    assert replay.id == json.loads(job.spec)["replay_dataset"]
    with pytest.raises(UsageError, match="named twice"):
        client.jobs.submit({**spec(), "replay_dataset": "tickets"})
    client.datasets.push(rows, "elsewhere", ["marketing"])
    with pytest.raises(PolicyError):
        client.jobs.submit({**spec(), "replay_dataset": "elsewhere"})


@pytest.fixture
def measured(site, spec):
    """Submits a job of a method that trains nothing."""

    def submit(method):
        wanted = {name: value for name, value in spec().items() if name in ("model", "purpose")}
        task = {"task": "classification"} if method == "evaluation" else {}
        return site.client().jobs.submit({**wanted, "evaluation_dataset": "tickets", "method": {method: task}})

    return submit


@pytest.mark.parametrize(("method", "files"), [("evaluation", PAGE), ("inference", ANSWERS)])
def test_a_report_without_a_version_is_opened(site, measured, tmp_path, method, files):
    """Its files come out as they were sealed, and its metrics are those that the host signed."""
    job = measured(method)
    assert signed_by(job).training is None
    end_with_report(site, job.id, files)
    client = site.client()
    found = client.jobs.report(job.id)
    assert (None, {"eval_accuracy": "0.75"}) == (found.figures, found.result.metrics)
    folder = client.jobs.open_report(found, tmp_path / "out")
    assert files == {path.name: path.read_bytes() for path in folder.iterdir()}


def test_an_export_is_no_report(site, measured):
    """A result of another kind, or of another object, does not stand for the report."""
    job = measured("evaluation")
    report = end_with_report(site, job.id, PAGE)
    honest = report.result
    for change in ({"kind": "export"}, {"object_id": "another"}, {"trailer_sha256": "0" * 64}, {"job_id": "another"}):
        report.sign(site, **{**dataclasses.asdict(honest), **change})
        with pytest.raises(BindingError):
            site.client().jobs.report(job.id)


@pytest.mark.parametrize(("method", "files"), [("evaluation", ANSWERS), ("inference", PAGE)])
def test_a_report_of_the_other_method_is_not_unpacked(site, measured, tmp_path, method, files):
    """Only the files that the method ends with are kept."""
    job = measured(method)
    end_with_report(site, job.id, files)
    client = site.client()
    with pytest.raises(SealedError):
        client.jobs.open_report(client.jobs.report(job.id), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command_prints_the_metrics(site, measured, tmp_path, monkeypatch, capsys):
    """`job report` names base and version side by side, and writes the folder."""

    def opened(home=None):
        client = site.client(home.name)
        client.site.refresh()
        return client

    monkeypatch.setattr(Client, "open", opened)
    job = measured("inference")
    end_with_report(site, job.id, ANSWERS)
    out, home = tmp_path / "out", str(site.homes["anna"].directory)
    assert 0 == run("cloister", cli, ["job", "report", job.id, "-o", str(out), "--home", home])
    said = " ".join(capsys.readouterr().out.split())
    assert "eval_accuracy 0.25 0.75" in said
    assert sha256(ANSWERS["predictions.jsonl"]) == sha256((out / "predictions.jsonl").read_bytes())
