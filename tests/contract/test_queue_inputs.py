# SPDX-License-Identifier: Apache-2.0
"""Replay rows, second models, stacks, and jobs that end with a report, on SQLite and on PostgreSQL."""

from dataclasses import replace
from typing import Any

import pytest

from cloister.api.v1 import jobs_pb2, models_pb2, workers_pb2
from cloister.evidence.result import Result
from cloister.evidence.signatures import Statement
from cloister.wire import statement_from_proto, statement_to_proto
from cloister_server.database import tables
from cloister_server.errors import EvidenceRejectedError, InvalidFieldError, NotFoundError, WrongStateError
from cloister_server.queue import debias, handover
from cloister_server.registry import versions
from queue_bench import Bench
from site_objects import Made, Signed, artifact, artifact_request, owned, success

ADAPTER, INDEX = models_pb2.LAYER_KIND_ADAPTER, models_pb2.LAYER_KIND_RETRIEVAL_INDEX


def ready(bench: Bench, owner: str = "alice", kind: str = "dataset") -> Made:
    made = owned(bench.founded, owner, kind)
    bench.create(owner, made)
    bench.set_ready(made)
    return made


def version(bench: Bench, kind: str = "adapter", member: str = "alice", **changes: object) -> tuple[str, Made]:
    """A candidate whose job exported a layer of this kind."""
    signed = bench.queued(member, **changes)
    bench.leased_job()
    made, result = artifact(bench.founded, "host-1", signed, 1, layer=kind)
    bench.create_artifact(artifact_request(signed, 1, made, result))
    bench.set_ready(made)
    bench.finish(success(signed, 1, made, models_pb2.LayerKind.Value(f"LAYER_KIND_{kind.upper()}")))
    return signed.id, made


def untrained(bench: Bench, method: str = "evaluation", **changes: Any) -> Signed:  # noqa: ANN401 - fields of the job
    rows = bench.rows["blue"].reference
    return bench.signed(untrained=True, evaluation=rows, method={method: {}}, **changes)


def leased(bench: Bench) -> workers_pb2.JobLease:
    row = bench.leased_job()
    return bench.look(lambda connection: handover.job_lease(connection, row, bench.founded.roster))


def test_every_input_is_handed_over_in_its_role(bench: Bench) -> None:
    """The lease has the replay rows and both parts of the second model, and the job names them."""
    replay, teacher = ready(bench), ready(bench, kind="model")
    second, layer = version(bench)
    signed = bench.queued(
        replay=replay.reference,
        auxiliary=bench.models["blue"].reference,
        auxiliary_layers=(layer.reference,),
        auxiliary_version=second,
    )
    lease = leased(bench)
    found = (lease.replay.object_id, lease.auxiliary.object_id, [item.object_id for item in lease.auxiliary_layers])
    assert (replay.id, bench.models["blue"].id, [layer.id]) == found
    job = bench.job(signed.id)
    assert (replay.id, second) == (job.replay_dataset, job.auxiliary_model)
    bench.submit(bench.signed(auxiliary=teacher.reference))


def test_a_second_model_is_the_one_that_the_spec_names(bench: Bench) -> None:
    """Another base, a layer that is not the version's, or none is refused; another team's version is not there."""
    second, layer = version(bench)
    foreign, _ = version(bench, member="gina")
    base, other = bench.models["blue"].reference, ready(bench, kind="model").reference
    wrong: tuple[dict[str, Any], ...] = (
        {"auxiliary": other, "auxiliary_layers": (layer.reference,), "auxiliary_version": second},
        {"auxiliary": base, "auxiliary_version": second},
        {"auxiliary": base, "auxiliary_layers": (layer.reference,)},
    )
    for fields in wrong:
        with pytest.raises(EvidenceRejectedError, match="auxiliary_model"):
            bench.submit(bench.signed(**fields))
    with pytest.raises(NotFoundError):
        bench.submit(bench.signed(auxiliary=base, auxiliary_version=foreign))


def test_another_teams_rows_are_no_replay_rows(bench: Bench) -> None:
    """A replay dataset of another team is NOT_FOUND; one that the authorisation does not name is refused."""
    with pytest.raises(NotFoundError):
        bench.submit(bench.signed(replay=bench.rows["green"].reference))
    signed = bench.signed(replay=ready(bench).reference)
    changed = replace(signed.authorisation, replay=ready(bench).reference)
    with pytest.raises(EvidenceRejectedError, match="replay_dataset"):
        bench.submit(replace(signed, statement=changed.sign(bench.founded.people["alice"].signing)))


def layers(bench: Bench, version_id: str) -> list[tuple[models_pb2.LayerKind.ValueType, str]]:
    def read(tx: object, call: object) -> models_pb2.ModelVersion:
        return versions.get(tx, call, version_id)  # type: ignore[arg-type]  # those of the bench

    found = bench.run("alice", read)
    assert all(layer.sealed.manifest for layer in found.layers)
    return [(layer.kind, layer.object_id) for layer in found.layers]


def test_a_layer_takes_the_place_of_the_one_of_its_class(bench: Bench) -> None:
    """An index is added to an adapter; a later adapter takes the earlier one's place and keeps the index."""
    one, adapter = version(bench)
    two, index = version(bench, "retrieval_index", version=one, model_layers=(adapter.reference,))
    assert [(ADAPTER, adapter.id), (INDEX, index.id)] == layers(bench, two)
    below = (adapter.reference, index.reference)
    three, newer = version(bench, version=two, model_layers=below)
    assert [(ADAPTER, newer.id), (INDEX, index.id)] == layers(bench, three)
    with pytest.raises(EvidenceRejectedError):
        bench.submit(bench.signed(version=two, model_layers=below[::-1]))


@pytest.mark.parametrize("said", [INDEX, models_pb2.LAYER_KIND_MERGED_WEIGHTS, models_pb2.LAYER_KIND_UNSPECIFIED])
def test_a_layer_is_of_the_kind_that_its_manifest_says(bench: Bench, said: models_pb2.LayerKind.ValueType) -> None:
    """A worker that claims another kind than the host signed ends nothing."""
    signed = bench.queued()
    bench.leased_job()
    made = bench.artifact(signed, 1)
    with pytest.raises(InvalidFieldError, match="layer_kind"):
        bench.finish(success(signed, 1, made, said))


def finished_report(bench: Bench, method: str = "evaluation") -> tuple[Signed, Made, Statement]:
    signed = untrained(bench, method)
    bench.submit(signed)
    bench.leased_job()
    made, result = artifact(bench.founded, "host-1", signed, 1, "report", step=0)
    bench.create_artifact(artifact_request(signed, 1, made, result, step=0))
    bench.set_ready(made)
    assert bench.finish(success(signed, 1, made)) == jobs_pb2.JOB_STATE_SUCCEEDED
    return signed, made, result


@pytest.mark.parametrize("method", ["evaluation", "inference"])
def test_a_report_job_makes_no_version(bench: Bench, method: str) -> None:
    """It succeeds with its metrics and its report, and the list of versions is as long as before."""
    before = bench.count("model_version")
    signed, made, result = finished_report(bench, method)
    job = bench.job(signed.id)
    assert ("", "", 0.9) == (job.fine_tuned_model, job.training_dataset, job.metrics["eval_accuracy"])
    assert before == bench.count("model_version")
    answer = bench.run("alice", lambda tx, call: debias.get(tx, call, signed.id))
    assert (result, b"", made.id) == (statement_from_proto(answer.result), answer.figures, answer.object_id)
    assert set(made.wraps) == {wrap.recipient_key_id for wrap in answer.wraps}


def test_the_report_of_another_team_is_not_found(bench: Bench) -> None:
    """Auditors read the result alone; another team's member finds nothing."""
    signed, _, result = finished_report(bench)
    with pytest.raises(NotFoundError):
        bench.run("gina", lambda tx, call: debias.get(tx, call, signed.id))
    answer = bench.run("carol", lambda tx, call: debias.get(tx, call, signed.id))
    assert (result.payload, "", False) == (answer.result.payload, answer.object_id, answer.HasField("sealed"))


def test_a_report_job_brings_no_export(bench: Bench) -> None:
    """A worker cannot make a version out of an evaluation, nor end a training job with a report."""
    signed = untrained(bench)
    bench.submit(signed)
    bench.leased_job()
    made, result = artifact(bench.founded, "host-1", signed, 1)
    with pytest.raises(InvalidFieldError, match="no version"):
        bench.create_artifact(artifact_request(signed, 1, made, result))
    bench.end(signed.id, 1, jobs_pb2.JOB_STATE_FAILED, "X")
    trained = bench.queued()
    bench.leased_job()
    made, result = artifact(bench.founded, "host-1", trained, 1, "report", step=0)
    with pytest.raises(InvalidFieldError, match="no report"):
        bench.create_artifact(artifact_request(trained, 1, made, result, step=0))


def test_a_report_needs_its_signed_result(bench: Bench) -> None:
    """Without a result, or with one of another kind, a report is not taken; nor is a second one."""
    signed = untrained(bench)
    bench.submit(signed)
    bench.leased_job()
    made, result = artifact(bench.founded, "host-1", signed, 1, "report", step=0)
    request = artifact_request(signed, 1, made, result, step=0)
    bare = workers_pb2.CreateArtifactRequest()
    bare.CopyFrom(request)
    wrong = replace(Result.parse(result.payload), kind="export").sign(bench.founded.hosts["host-1"].signing)
    bare.result.CopyFrom(statement_to_proto(wrong))
    with pytest.raises(EvidenceRejectedError):
        bench.create_artifact(bare)
    bench.create_artifact(request)
    again, its_result = artifact(bench.founded, "host-1", signed, 1, "report", step=0)
    with pytest.raises(InvalidFieldError, match="already"):
        bench.create_artifact(artifact_request(signed, 1, again, its_result, step=0))


def test_a_candidate_does_not_answer(bench: Bench) -> None:
    """Inference on a candidate is refused with what to do; an evaluation is not, and a released version answers."""
    candidate, layer = version(bench)
    on_it: dict[str, Any] = {"version": candidate, "model_layers": (layer.reference,)}
    with pytest.raises(WrongStateError, match="release it first"):
        bench.submit(untrained(bench, "inference", **on_it))
    second: dict[str, Any] = {"auxiliary": bench.models["blue"].reference, "auxiliary_layers": (layer.reference,)}
    with pytest.raises(WrongStateError, match="release it first"):
        bench.submit(untrained(bench, "inference", auxiliary_version=candidate, **second))
    bench.submit(untrained(bench, "evaluation", **on_it))
    table = tables.model_version
    released = table.update().where(table.c.id == candidate).values(state="RELEASED")
    bench.unit_of_work.run("test", lambda tx: tx.connection.execute(released))
    bench.submit(untrained(bench, "inference", **on_it))
    bench.submit(untrained(bench, "inference"))
