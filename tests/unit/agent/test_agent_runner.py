# SPDX-License-Identifier: Apache-2.0
"""One attempt of a job through the agent; the key agent is real, the control plane and the trainer are doubles."""

import json
import os
from pathlib import Path

import pytest

from builders import Sealed
from cloister.api.v1 import jobs_pb2, models_pb2, workers_pb2
from cloister.evidence.manifest import Manifest
from cloister.evidence.result import Result
from cloister_workers.protocol import (
    DatasetRole,
    Failed,
    FailureCode,
    FailureNumber,
    RowErrors,
    RowReason,
)
from cloister_workers.protocol import Result as ResultMessage
from fake_run import ACCURACY, ROWS, bundle, good_trainer, run, run_lease
from fake_site import FakeHost, fake_host, job_lease, unavailable
from fake_trainer import TrainerSide


def test_a_job_runs_from_lease_to_result(host: FakeHost) -> None:
    """The trainer sees the plaintext, the store gets ciphertext, and the end names the result."""
    host.scripts.append(good_trainer)
    ended = run(host)
    assert ended is not None
    assert ended.state == jobs_pb2.JOB_STATE_SUCCEEDED
    side = host.processes[0].side
    assert side.inputs == {DatasetRole.TRAINING: ROWS}
    assert side.sandbox.model_dir is not None
    assert (side.sandbox.model_dir / "config.json").read_bytes() == b"{}"
    assert side.start is not None
    assert side.start.spec["suffix"] == "helpdesk"
    kinds = [artifact.kind for artifact in host.control.artifacts]
    assert kinds == [workers_pb2.ARTIFACT_KIND_STATE, workers_pb2.ARTIFACT_KIND_EXPORT]
    export = host.control.artifacts[1]
    assert ended.artifact_id == Manifest.parse(export.sealed.manifest).id
    assert Result.parse(export.result.payload).metrics_before == {"eval_accuracy": "0.25"}
    assert (ended.trained_tokens, ended.layer_kind) == (200, models_pb2.LAYER_KIND_ADAPTER)
    assert dict(ended.metrics_before) == {"eval_accuracy": 0.25}
    assert dict(ended.metrics_after) == {"eval_accuracy": 0.75}
    assert len(export.wraps) == 2


def test_every_loss_is_reported_once_and_in_order(host: FakeHost) -> None:
    """Progress is merged to a report a second, but no step's loss is missing; numbers of events have no gap."""
    host.scripts.append(good_trainer)
    run(host)
    losses = {name: value for event in host.control.events for name, value in event.data.items() if "loss." in name}
    assert losses == {"train_loss.1": 1.0, "train_loss.2": 0.5}
    assert [event.stream_seq for event in host.control.events] == list(range(1, len(host.control.events) + 1))
    assert host.control.names()[:2] == ["unseal started", "unseal finished"]
    assert host.control.names()[-1] == "publish finished"


def test_nothing_of_a_dataset_is_said_to_the_control_plane(host: FakeHost) -> None:
    """Events, artifacts, the outcome and the log hold no byte of the rows."""
    host.scripts.append(good_trainer)
    ended = run(host)
    assert ended is not None
    said = b"".join(m.SerializeToString() for m in (*host.control.events, *host.control.artifacts, ended))
    said += json.dumps(host.log).encode() + b"".join(bytes(blob) for blob in host.control.uploads.values())
    assert b"CANARY" not in said


def test_a_cached_model_is_not_fetched_again(host: FakeHost) -> None:
    """The second job with the same base model reads only its data."""
    model = host.site.model()
    for _ in range(2):
        host.scripts.append(good_trainer)
        run(host, model=model)
    assert len(host.processes) == 2
    host.control.blobs.pop(model.id)
    host.scripts.append(good_trainer)
    leased = job_lease(host.control, host.site.job(model=model))
    host.control.blobs.pop(model.id)
    host.control.finished.clear()
    ended = run_lease(host, leased)
    assert ended is not None
    assert ended.state == jobs_pb2.JOB_STATE_SUCCEEDED


def test_a_model_with_other_files_than_named_is_refused(host: FakeHost) -> None:
    """A base model whose files do not have the digest of its manifest fails the job and stays out of the cache."""
    details = {"files_sha256": "0" * 64, "licence": "x", "source": "y"}
    ended = run(host, model=host.site.seal("model", bundle(), details=details))
    assert ended is not None
    assert (ended.state, ended.error.code) == (jobs_pb2.JOB_STATE_FAILED, "MODEL_INVALID")
    assert list(host.paths.cache.iterdir()) == []


def test_a_model_with_code_in_it_is_refused(host: FakeHost) -> None:
    """A base model with a file beyond the allow-list is not unpacked."""
    details = {"files_sha256": "0" * 64, "licence": "x", "source": "y"}
    model = host.site.seal("model", bundle({"modeling.py": b"x" * 300_000}), details=details)
    ended = run(host, model=model)
    assert ended is not None
    assert ended.error.code == "MODEL_INVALID"
    assert "FILE_NOT_ALLOWED" in ended.error.message


def test_a_job_goes_on_from_a_checkpoint(host: FakeHost) -> None:
    """The checkpoint of an earlier attempt flows into the trainer beside the rows."""
    job = host.site.job()
    state: Sealed = host.site.state(b"the state", host="host-2")
    host.scripts.append(good_trainer)
    ended = run_lease(host, job_lease(host.control, job, 2, (state, host.site.result(job, state, host="host-2"))))
    assert ended is not None
    assert ended.state == jobs_pb2.JOB_STATE_SUCCEEDED
    assert host.processes[0].side.inputs[DatasetRole.CHECKPOINT] == b"the state"


def test_a_job_on_a_version_gets_its_layer(host: FakeHost) -> None:
    """The layer's bundle flows into the trainer beside the rows, and the base model lies in its folder as always."""
    layer = host.site.export(bundle(), host="host-2")
    host.scripts.append(good_trainer)
    ended = run(host, layers=[layer])
    assert ended is not None
    assert ended.state == jobs_pb2.JOB_STATE_SUCCEEDED
    side = host.processes[0].side
    assert side.inputs == {DatasetRole.TRAINING: ROWS, DatasetRole.LAYER: bundle()}
    assert side.sandbox.model_dir is not None
    assert (side.sandbox.model_dir / "config.json").read_bytes() == b"{}"
    opened = json.loads(host.site.log.entries[-1])["detail"]["inputs"]
    assert opened[1] == layer.object.trailer.digest


def test_a_result_of_whole_weights_is_no_adapter(host: FakeHost) -> None:
    """The layer's kind goes by the files that were sealed."""

    def trainer(side: TrainerSide) -> None:
        side.begin()
        files = {"config.json": b"{}", "model.safetensors": b"weights"}
        side.send_bundle(ResultMessage(step=2, metrics=ACCURACY, trained_tokens=200), bundle(files))

    host.scripts.append(trainer)
    ended = run(host)
    assert ended is not None
    assert ended.layer_kind == models_pb2.LAYER_KIND_MERGED_WEIGHTS


def test_layers_of_one_class_are_not_opened(host: FakeHost) -> None:
    """Two adapters are no stack: the key agent reads their kinds off what hosts signed, and opens nothing."""
    ended = run(host, layers=[host.site.export(bundle()), host.site.export(bundle())])
    assert ended is not None
    assert (ended.error.code, host.processes) == ("EVIDENCE_REFUSED", [])


def test_a_withheld_layer_is_noticed(host: FakeHost) -> None:
    """A lease without the layer that the member signed is not run on the bare base."""
    leased = job_lease(host.control, host.site.job(layers=[host.site.export(bundle())]))
    del leased.model_layers[:]
    ended = run_lease(host, leased)
    assert ended is not None
    assert (ended.error.code, host.processes) == ("EVIDENCE_REFUSED", [])


def test_a_layer_in_the_place_of_the_rows_is_noticed(host: FakeHost) -> None:
    """A lease that swaps layer and training rows opens nothing."""
    leased = job_lease(host.control, host.site.job(layers=[host.site.export(bundle())]))
    layer, rows = leased.model_layers[0], leased.training
    swapped = workers_pb2.GrantedObject()
    swapped.CopyFrom(layer)
    layer.CopyFrom(rows)
    rows.CopyFrom(swapped)
    ended = run_lease(host, leased)
    assert ended is not None
    assert (ended.error.code, host.processes) == ("EVIDENCE_REFUSED", [])


def test_row_errors_fail_the_job_with_numbers_and_reasons(host: FakeHost) -> None:
    """Each refused row is an event of number and reason, and the job fails for good."""

    def trainer(side: TrainerSide) -> None:
        side.begin()
        errors = ((3, RowReason.NOT_JSON), (7, RowReason.EMPTY_TEXT))
        side.channel.send(RowErrors(dataset=DatasetRole.TRAINING, total_errors=2, errors=errors))
        side.channel.send(Failed(code=FailureCode.ROWS_INVALID, numbers={FailureNumber.TOTAL_ERRORS: 2}))

    host.scripts.append(trainer)
    ended = run(host)
    assert ended is not None
    assert (ended.state, ended.error.code) == (jobs_pb2.JOB_STATE_FAILED, "INVALID_ROWS")
    assert "(2 rows)" in ended.error.message
    assert "training row 3: NOT_JSON" in host.control.names()
    assert "training row 7: EMPTY_TEXT" in host.control.names()


@pytest.mark.parametrize(
    ("code", "state"),
    [
        (FailureCode.SPEC_INVALID, jobs_pb2.JOB_STATE_FAILED),
        (FailureCode.NON_FINITE_LOSS, jobs_pb2.JOB_STATE_FAILED),
        (FailureCode.OUT_OF_MEMORY, jobs_pb2.JOB_STATE_PREEMPTED),
        (FailureCode.SCRATCH_FULL, jobs_pb2.JOB_STATE_PREEMPTED),
    ],
)
def test_only_faults_of_the_host_are_tried_again(
    host: FakeHost, code: FailureCode, state: jobs_pb2.JobState.ValueType
) -> None:
    """What the data or the specification cause fails; what the machine causes is handed back."""

    def trainer(side: TrainerSide) -> None:
        side.begin()
        side.channel.send(Failed(code=code))

    host.scripts.append(trainer)
    ended = run(host)
    assert ended is not None
    assert (ended.state, ended.error.code) == (state, code.value)


@pytest.mark.parametrize("code", [-9, -11, 1])
def test_a_trainer_that_dies_is_handed_back(host: FakeHost, code: int) -> None:
    """A trainer killed by a signal or gone without a last word is an infrastructure fault."""

    def trainer(side: TrainerSide) -> int:
        side.begin()
        return code

    host.scripts.append(trainer)
    ended = run(host)
    assert ended is not None
    assert (ended.state, ended.error.code) == (jobs_pb2.JOB_STATE_PREEMPTED, "TRAINER_LOST")


def test_a_refusal_of_the_key_agent_fails_the_job(host: FakeHost) -> None:
    """Evidence that does not hold fails the job with the reason; no trainer is ever started."""

    def forge(answer: workers_pb2.RequestOpeningResponse) -> None:
        answer.entry = answer.entry.replace(b'"intent"', b'"outcome"')

    host.control.tamper = forge
    ended = run(host)
    assert ended is not None
    assert (ended.state, ended.error.code) == (jobs_pb2.JOB_STATE_FAILED, "EVIDENCE_REFUSED")
    assert "(TAMPERED)" in ended.error.message
    assert host.processes == []


def test_malformed_evidence_fails_the_job(host: FakeHost) -> None:
    """A manifest that is not JSON is a refusal and no crash of the agent."""
    leased = job_lease(host.control, host.site.job())
    leased.model.sealed.manifest = b"\xff"
    ended = run_lease(host, leased)
    assert ended is not None
    assert ended.error.code == "EVIDENCE_REFUSED"


def test_a_broken_download_goes_on_where_it_stopped(host: FakeHost) -> None:
    """A stream that breaks three times is read on, byte for byte."""
    host.control.fail["ReadBlob"] = [unavailable(), unavailable(), unavailable()]
    host.scripts.append(good_trainer)
    ended = run(host)
    assert ended is not None
    assert ended.state == jobs_pb2.JOB_STATE_SUCCEEDED
    assert host.processes[0].side.inputs[DatasetRole.TRAINING] == ROWS


def test_a_damaged_blob_is_the_hosts_or_the_stores_fault(host: FakeHost) -> None:
    """A blob that has the wrong digest twice is handed back before anything is opened."""
    job = host.site.job()
    leased = job_lease(host.control, job)
    host.control.blobs[job.inputs[1].id] = b"short"
    ended = run_lease(host, leased)
    assert ended is not None
    assert (ended.state, ended.error.code) == (jobs_pb2.JOB_STATE_PREEMPTED, "BLOB_DAMAGED")
    assert "RequestOpening" not in host.control.calls


def test_a_broken_upload_goes_on_where_it_stopped(host: FakeHost) -> None:
    """A stream that breaks in the middle is sent on from what arrived."""
    big = bundle({"adapter_model.safetensors": os.urandom(3_000_000)})

    def trainer(side: TrainerSide) -> None:
        side.begin()
        side.send_bundle(ResultMessage(step=2, metrics=ACCURACY, trained_tokens=200), big)

    host.control.fail["WriteBlob"] = [unavailable(), unavailable()]
    host.scripts.append(trainer)
    ended = run(host)
    assert ended is not None
    assert ended.state == jobs_pb2.JOB_STATE_SUCCEEDED


def test_a_full_disk_has_its_own_code(tmp_path: Path) -> None:
    """A spool without room hands the job back with DISK_FULL and leaves nothing behind."""
    with fake_host(tmp_path / "host", reserve_bytes=1 << 60) as host:
        ended = run(host)
    assert ended is not None
    assert (ended.state, ended.error.code) == (jobs_pb2.JOB_STATE_PREEMPTED, "DISK_FULL")


def test_a_checkpoint_that_cannot_be_stored_does_not_end_the_job(host: FakeHost) -> None:
    """A full store costs the checkpoint, not the training; the team is told."""
    import grpc

    from fake_site import CallError

    full = CallError(grpc.StatusCode.RESOURCE_EXHAUSTED, "ERROR_REASON_STORAGE_EXHAUSTED")
    host.control.fail["CreateArtifact"] = [full]
    host.scripts.append(good_trainer)
    ended = run(host)
    assert ended is not None
    assert ended.state == jobs_pb2.JOB_STATE_SUCCEEDED
    assert "a checkpoint could not be stored; training goes on without it" in host.control.names()


def test_without_a_sandbox_the_policy_decides(tmp_path: Path) -> None:
    """A host without a sandbox runs a job only under a policy that allows it; event and result say so."""
    with fake_host(tmp_path / "host", sandboxed=False) as host:
        ended = run(host)
        assert ended is not None
        assert "(POLICY_NOT_MET)" in ended.error.message
        host.control.finished.clear()
        host.scripts.append(good_trainer)
        ended = run(host, policy=host.site.policy(allow_unsandboxed=True))
        assert ended is not None
        assert ended.state == jobs_pb2.JOB_STATE_SUCCEEDED
        assert Result.parse(host.control.artifacts[1].result.payload).sandboxed is False
        assert any("unsandboxed" in name for name in host.control.names())


def test_without_a_key_agent_the_job_is_handed_back(tmp_path: Path) -> None:
    """A key agent that does not answer is the host's fault."""
    with fake_host(tmp_path / "host") as host:
        host.paths.socket.unlink()
        ended = run(host)
    assert ended is not None
    assert (ended.state, ended.error.code) == (jobs_pb2.JOB_STATE_PREEMPTED, "KEY_AGENT_GONE")


def test_finishing_is_tried_until_it_is_recorded(host: FakeHost) -> None:
    """An outcome that got no answer is sent again."""
    host.control.fail["FinishJob"] = [unavailable(), unavailable()]
    host.scripts.append(good_trainer)
    ended = run(host)
    assert ended is not None
    assert host.control.calls.count("FinishJob") == 3


@pytest.mark.parametrize("name", ["evaluation", "../escape", "/tmp/absolute"])
def test_a_lease_that_names_an_input_otherwise_is_refused(host: FakeHost, name: str) -> None:
    """A lease that calls the training rows by the evaluation's id, or by a path, is refused and nothing is fetched."""
    # With the evaluation's id the trainer would learn from the rows that it is measured on, and every signature hold.
    site = host.site
    job = site.job(training=site.dataset(ROWS), evaluation=site.dataset(ROWS + ROWS))
    leased = job_lease(host.control, job)
    leased.training.object_id = leased.evaluation.object_id if name == "evaluation" else name
    ended = run_lease(host, leased)
    assert ended is not None
    assert (ended.state, ended.error.code) == (jobs_pb2.JOB_STATE_FAILED, "EVIDENCE_REFUSED")
    assert host.processes == []


def test_another_teams_model_is_not_taken_from_the_cache(host: FakeHost) -> None:
    """The model cache goes by the signed trailer: claiming the digest of cached files opens nothing."""
    host.scripts.append(good_trainer)
    run(host)
    cached = {path.name for path in host.paths.cache.iterdir()}
    assert host.control.job is not None
    model = host.control.job.inputs[0].object
    details = json.loads(model.manifest)["details"]
    assert {model.trailer.digest} == cached
    assert details["files_sha256"] not in cached
