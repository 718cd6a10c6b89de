# SPDX-License-Identifier: Apache-2.0
"""Replay rows, second models, stacks, and jobs that end with a report; control plane and trainer are doubles."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from builders import Sealed, Site
from cloister.api.v1 import jobs_pb2, models_pb2, workers_pb2
from cloister.evidence.manifest import Manifest
from cloister.evidence.result import Result
from cloister_workers.protocol import DatasetRole, Evaluation, EvaluationPhase, MetricName, Reported
from cloister_workers.protocol import Result as ResultMessage
from fake_run import ACCURACY, ROWS, bundle, good_trainer, run, run_lease
from fake_site import FakeHost, job_lease
from fake_trainer import Script, TrainerSide

INDEX = {"retrieval.json": b"{}", "index.safetensors": b"vectors"}
PAGE = {"report.html": b"<p>", "report.json": b"{}"}
ANSWERS = {"predictions.jsonl": b'{"row":1}'}


def stack(site: Site) -> list[Sealed]:
    """An adapter, an index and demonstrations, each with bytes of its own."""
    kinds = ("adapter", "retrieval_index", "demonstrations")
    return [site.export(kind.encode(), layer=kind) for kind in kinds]


def test_replay_rows_flow_beside_the_others(host: FakeHost) -> None:
    """The trainer gets the earlier rows in a role of their own."""
    host.scripts.append(good_trainer)
    ended = run(host, replay=host.site.dataset(b"earlier"))
    assert ended is not None
    assert ended.state == jobs_pb2.JOB_STATE_SUCCEEDED
    assert host.processes[0].side.inputs == {DatasetRole.TRAINING: ROWS, DatasetRole.REPLAY: b"earlier"}


def test_the_layers_of_a_stack_flow_in_order(host: FakeHost) -> None:
    """Each layer of a version is poured into the role of its place."""
    host.scripts.append(good_trainer)
    run(host, layers=stack(host.site))
    inputs = host.processes[0].side.inputs
    roles = (DatasetRole.LAYER, DatasetRole.LAYER_2, DatasetRole.LAYER_3)
    assert [b"adapter", b"retrieval_index", b"demonstrations"] == [inputs[role] for role in roles]


def test_a_second_model_has_a_folder_of_its_own(host: FakeHost) -> None:
    """Its base is a second directory of the sandbox, its weights an input."""
    teacher = host.site.model({"config.json": b'{"teacher":1}'})
    host.scripts.append(good_trainer)
    run(host, auxiliary=[teacher, host.site.export(b"its weights")])
    side = host.processes[0].side
    assert side.sandbox.auxiliary_dir is not None
    assert (side.sandbox.auxiliary_dir / "config.json").read_bytes() == b'{"teacher":1}'
    assert side.start is not None
    assert side.start.auxiliary_dir == "/auxiliary"
    assert side.inputs[DatasetRole.AUXILIARY_LAYER] == b"its weights"


def test_a_second_model_may_stand_on_the_same_base(host: FakeHost) -> None:
    """A version may teach its own base: one folder of the cache is seen twice."""
    base = host.site.model()
    host.scripts.append(good_trainer)
    ended = run(host, model=base, auxiliary=[base, host.site.export(b"its weights")])
    assert ended is not None
    assert ended.state == jobs_pb2.JOB_STATE_SUCCEEDED
    sandbox = host.processes[0].side.sandbox
    assert sandbox.model_dir == sandbox.auxiliary_dir


def test_without_a_second_model_nothing_is_mounted(host: FakeHost) -> None:
    """The trainer of an ordinary job is told of no second directory."""
    host.scripts.append(good_trainer)
    run(host)
    side = host.processes[0].side
    assert side.start is not None
    assert (side.sandbox.auxiliary_dir, side.start.auxiliary_dir) == (None, "")


def test_an_index_is_a_layer_of_its_kind(host: FakeHost) -> None:
    """The kind goes by the files, into the outcome and into the signed manifest."""

    def trainer(side: TrainerSide) -> None:
        side.begin()
        side.send_bundle(ResultMessage(step=1, metrics=ACCURACY, trained_tokens=0), bundle(INDEX))

    host.scripts.append(trainer)
    ended = run(host)
    assert ended is not None
    assert ended.layer_kind == models_pb2.LAYER_KIND_RETRIEVAL_INDEX
    assert Manifest.parse(host.control.artifacts[0].sealed.manifest).details["layer"] == "retrieval_index"


def reporting(files: dict[str, bytes]) -> Script:
    def trainer(side: TrainerSide) -> None:
        side.begin()
        before = {MetricName.EVAL_ACCURACY: 0.25}
        side.channel.send(Evaluation(phase=EvaluationPhase.BEFORE, step=0, metrics=before))
        side.send_bundle(Reported(metrics=ACCURACY, rows=7), bundle(files))

    return trainer


def ended_with(host: FakeHost, method: str, trainer: Script) -> workers_pb2.FinishJobRequest:
    host.scripts.append(trainer)
    rows = host.site.dataset(b"the rows")
    ended = run_lease(host, job_lease(host.control, host.site.job(untrained=True, evaluation=rows, spec=spec(method))))
    assert ended is not None
    return ended


def spec(method: str) -> dict[str, object]:
    return {"method": {method: {}}}


@pytest.mark.parametrize(("method", "files"), [("evaluation", PAGE), ("inference", ANSWERS)])
def test_a_job_ends_with_a_signed_report(host: FakeHost, method: str, files: dict[str, bytes]) -> None:
    """What it found is sealed to the member and the team; the result binds it with the metrics, and is no version."""
    ended = ended_with(host, method, reporting(files))
    assert (ended.state, ended.layer_kind, ended.layer_digest) == (jobs_pb2.JOB_STATE_SUCCEEDED, 0, "")
    (artifact,) = host.control.artifacts
    assert artifact.kind == workers_pb2.ARTIFACT_KIND_REPORT
    result = Result.parse(artifact.result.payload)
    manifest = Manifest.parse(artifact.sealed.manifest)
    assert (result.kind, result.object_id, manifest.kind) == ("report", ended.artifact_id, "report")
    assert (result.metrics, result.metrics_before) == ({"eval_accuracy": "0.75"}, {"eval_accuracy": "0.25"})
    people = (host.site.people["alice"].identity, host.site.recovery)
    assert {i.recipient.key_id for i in people} == {wrap.recipient_key_id for wrap in artifact.wraps}
    assert {DatasetRole.EVALUATION: b"the rows"} == host.processes[0].side.inputs


def exporting(side: TrainerSide) -> None:
    side.begin()
    side.send_bundle(ResultMessage(step=1, metrics=ACCURACY, trained_tokens=0), bundle())


@pytest.mark.parametrize(
    ("method", "trainer"),
    [
        ("evaluation", exporting),
        ("inference", exporting),
        ("evaluation", reporting(ANSWERS)),
        ("inference", reporting(PAGE)),
        ("inference", reporting({**ANSWERS, "more.json": b"{}"})),
        ("classification", reporting(PAGE)),
        ("debias", reporting(ANSWERS)),
    ],
)
def test_a_job_brings_what_its_method_ends_with(host: FakeHost, method: str, trainer: Script) -> None:
    """A model from a job that makes none, a report from one that trains, or the other one's files are never sealed."""
    ended = ended_with(host, method, trainer)
    assert (ended.error.code, host.control.artifacts) == ("RESULT_REFUSED", [])


def swap(leased: workers_pb2.JobLease, role: str, other: workers_pb2.GrantedObject) -> None:
    getattr(leased, role).CopyFrom(other)


@pytest.mark.parametrize("role", ["replay", "auxiliary"])
def test_a_swapped_input_is_noticed(host: FakeHost, role: str) -> None:
    """Other replay rows, or another second model, of the same team and truly signed, are not opened."""
    site = host.site
    both = {"replay": site.dataset(b"earlier"), "auxiliary": [site.model({"config.json": b"[1]"})]}
    leased = job_lease(host.control, site.job(training=site.dataset(ROWS), **both))  # type: ignore[arg-type]
    others = {"replay": site.dataset(b"poison"), "auxiliary": site.model({"config.json": b"[2]"})}
    donor = job_lease(host.control, site.job(replay=others["replay"], auxiliary=[others["auxiliary"]]))
    swap(leased, role, getattr(donor, role))
    ended = run_lease(host, leased)
    assert ended is not None
    assert (ended.error.code, host.processes) == ("EVIDENCE_REFUSED", [])


def foreign(site: Site) -> dict[str, object]:
    return {"auxiliary": [site.model(), site.export(b"theirs", team="blue")]}


def foreign_base(site: Site) -> dict[str, object]:
    return {"auxiliary": [site.model({"config.json": b"[3]"}, owner="mallory", team="blue")]}


def no_weights(site: Site) -> dict[str, object]:
    return {"auxiliary": [site.model(), site.export(b"index", layer="retrieval_index")]}


def upside_down(site: Site) -> dict[str, object]:
    return {"layers": stack(site)[::-1]}


def unsaid(site: Site) -> dict[str, object]:
    return {"layers": [site.export(b"old", details={})]}


@pytest.mark.parametrize("made", [foreign, foreign_base, no_weights, upside_down, unsaid])
def test_models_that_may_not_be_opened_are_not(host: FakeHost, made: Callable[[Site], dict[str, object]]) -> None:
    """A layer or base of another team, an index as a second model's weights, a stack out of order, or a layer whose
    host does not say what it is: whatever the member signed and the control plane logged, nothing is opened.
    """
    ended = run(host, **made(host.site))  # type: ignore[arg-type]  # inputs of the job
    assert ended is not None
    assert (ended.error.code, host.processes) == ("EVIDENCE_REFUSED", [])


def test_replay_rows_in_the_place_of_the_training_rows_are_noticed(host: FakeHost) -> None:
    """One dataset as two inputs is refused before anything is fetched."""
    site = host.site
    leased = job_lease(host.control, site.job(replay=site.dataset(b"earlier")))
    swap(leased, "replay", leased.training)
    ended = run_lease(host, leased)
    assert ended is not None
    assert (ended.error.code, host.control.calls.count("ReadBlob")) == ("EVIDENCE_REFUSED", 0)


def test_nothing_of_a_report_is_said_to_the_control_plane(host: FakeHost, tmp_path: Path) -> None:
    """Answers reach the store as ciphertext alone."""
    ended = ended_with(host, "inference", reporting({"predictions.jsonl": b"CANARY"}))
    said = b"".join(m.SerializeToString() for m in (*host.control.events, *host.control.artifacts, ended))
    said += json.dumps(host.log).encode() + b"".join(bytes(blob) for blob in host.control.uploads.values())
    assert b"CANARY" not in said
