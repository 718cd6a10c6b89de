# SPDX-License-Identifier: Apache-2.0
"""The queue on SQLite and on PostgreSQL."""

import threading
from collections.abc import Callable

import pytest
from sqlalchemy import Connection, update

from cloister.api.v1 import jobs_pb2, workers_pb2
from cloister_server.database import tables
from cloister_server.database.rows import JobRow, VersionRow
from cloister_server.errors import (
    BlobIncompleteError,
    InvalidFieldError,
    LeaseLostError,
)
from cloister_server.queue import handover
from cloister_server.registry import objects, versions
from queue_bench import Bench
from site_objects import artifact, artifact_request, success

SUCCEEDED = jobs_pb2.JOB_STATE_SUCCEEDED
FAILED = jobs_pb2.JOB_STATE_FAILED
CANCELLED = jobs_pb2.JOB_STATE_CANCELLED
PREEMPTED = jobs_pb2.JOB_STATE_PREEMPTED


def step(seq: int, name: str, status: str) -> workers_pb2.WorkerEvent:
    return workers_pb2.WorkerEvent(
        stream_seq=seq, type="step", level="info", step=jobs_pb2.JobStep(name=name, status=status)
    )


def test_a_job_is_leased_once_with_its_first_attempt(bench: Bench) -> None:
    """Of two hosts that ask, one gets the job as attempt 1 and the other nothing."""
    signed = bench.queued()
    taken, other = bench.leased_job("host-1"), bench.lease("host-2")
    assert (signed.id, 1, "host-1") == (taken.id, taken.attempt, taken.worker)
    assert other is None


def test_parallel_hosts_never_get_the_same_job(bench: Bench) -> None:
    """Hosts that ask at the same time share out the jobs, each exactly once."""
    wanted = {bench.queued().id for _ in range(6)}
    taken: list[str] = []

    def ask(host: str) -> None:
        for _ in range(3):
            row = bench.lease(host)
            if row is not None:
                taken.append(row.id)
                bench.end(row.id, row.attempt, FAILED, "bad_rows", host)

    threads = [threading.Thread(target=ask, args=(host,)) for host in ("host-1", "host-2")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(wanted) == sorted(taken)


def test_a_stale_worker_can_write_nothing(bench: Bench) -> None:
    """After its lease ran out a worker's every write is LEASE_LOST, and the next attempt is not disturbed."""
    signed = bench.queued()
    bench.leased_job("host-1")
    bench.open(signed.id, 1)
    stale, result = artifact(bench.founded, "host-1", signed, 1)
    early = bench.artifact(signed, 1)
    bench.run_out(signed.id)
    second = bench.leased_job("host-2")
    assert (signed.id, 2) == (second.id, second.attempt)
    request = artifact_request(signed, 1, stale, result)
    writes: list[Callable[[], object]] = [
        lambda: bench.heartbeat(signed.id, 1),
        lambda: bench.open(signed.id, 1),
        lambda: bench.report(signed.id, 1, step(1, "train", "started")),
        lambda: bench.create_artifact(request),
        lambda: bench.finish(success(signed, 1, early)),
        lambda: bench.end(signed.id, 1, FAILED, "late"),
        lambda: bench.heartbeat(signed.id, 2, "host-1"),
    ]
    for write in writes:
        with pytest.raises(LeaseLostError):
            write()
    assert SUCCEEDED == bench.succeed(signed, 2, "host-2")
    assert 1 == bench.count("model_version") - len(bench.models)


def test_a_lost_worker_costs_an_attempt_until_none_is_left(bench: Bench) -> None:
    """Each lost lease sends the job back with the next attempt; after the last one it fails as worker_lost."""
    signed = bench.queued(max_attempts=2)
    for attempt in (1, 2):
        assert attempt == bench.leased_job().attempt
        bench.run_out(signed.id)
        assert 1 == bench.sweep()
        assert (PREEMPTED if attempt == 1 else FAILED) == bench.job(signed.id).state
    job = bench.job(signed.id)
    assert ("worker_lost", 2) == (job.error.code, job.attempt)
    assert bench.lease() is None
    assert [2, 1, 1] == [
        len(bench.entries(action, signed.id)) for action in ("job.lease.lost", "job.attempt.end", "job.end")
    ]


def test_a_heartbeat_keeps_the_lease(bench: Bench) -> None:
    """A lease that is kept is not swept, and its holder is told to go on."""
    signed = bench.queued()
    bench.leased_job()
    assert workers_pb2.DIRECTIVE_CONTINUE == bench.heartbeat(signed.id, 1)
    assert 0 == bench.sweep()


def test_a_lease_that_ran_out_is_over_before_it_is_swept(bench: Bench) -> None:
    """The fence goes by the clock: a late heartbeat does not revive a lease."""
    signed = bench.queued()
    bench.leased_job()
    bench.run_out(signed.id)
    with pytest.raises(LeaseLostError):
        bench.heartbeat(signed.id, 1)


def test_a_host_that_asks_again_gives_up_what_it_held(bench: Bench) -> None:
    """An agent that was killed gets its job again at once, as the next attempt."""
    signed = bench.queued()
    assert 1 == bench.leased_job().attempt
    again = bench.leased_job()
    assert (signed.id, 2) == (again.id, again.attempt)


def test_priority_goes_before_age(bench: Bench) -> None:
    """A later job of higher priority runs first."""
    first, urgent = bench.queued(), bench.queued(priority=10)
    assert [urgent.id, first.id] == [bench.leased_job("host-1").id, bench.leased_job("host-2").id]


def test_a_team_that_used_less_goes_first(bench: Bench) -> None:
    """With equal priority the team whose attempts took less time goes before older jobs of the other."""
    used = bench.queued("alice")
    bench.leased_job()
    hour_ago = update(tables.job_attempt).values(leased_at=tables.job_attempt.c.leased_at - 3_600_000)
    bench.unit_of_work.run("test", lambda tx: tx.connection.execute(hour_ago))
    bench.end(used.id, 1, FAILED, "bad_rows")
    older, newer = bench.queued("alice"), bench.queued("gina")
    assert (1, 0) == (bench.job(older.id).jobs_ahead, bench.job(newer.id).jobs_ahead)
    assert [newer.id, older.id] == [bench.leased_job("host-1").id, bench.leased_job("host-2").id]


def test_jobs_ahead_counts_what_runs_earlier(bench: Bench) -> None:
    """A waiting job tells how many waiting jobs of its pool go first."""
    ids = [bench.queued().id for _ in range(3)]
    assert [0, 1, 2] == [bench.job(job_id).jobs_ahead for job_id in ids]


def test_a_waiting_job_is_cancelled_at_once(bench: Bench) -> None:
    """Cancelling a queued job ends it, and no worker gets it."""
    signed = bench.queued()
    assert CANCELLED == bench.cancel(signed.id).state
    assert bench.lease() is None
    assert CANCELLED == bench.cancel(signed.id).state
    assert 1 == len(bench.entries("job.end", signed.id))


def test_a_leased_job_is_cancelled_by_its_worker(bench: Bench) -> None:
    """Cancelling a leased job reaches its worker with the next heartbeat; the job ends when the worker says so."""
    signed = bench.queued()
    bench.leased_job()
    bench.cancel(signed.id)
    assert workers_pb2.DIRECTIVE_CANCEL == bench.heartbeat(signed.id, 1)
    assert CANCELLED == bench.end(signed.id, 1, CANCELLED)


def test_a_cancelled_job_whose_worker_is_lost_does_not_come_back(bench: Bench) -> None:
    """Where the worker dies before it heard of the cancellation, the job is cancelled and not tried again."""
    signed = bench.queued()
    bench.leased_job()
    bench.cancel(signed.id)
    bench.run_out(signed.id)
    bench.sweep()
    assert CANCELLED == bench.job(signed.id).state


def test_only_infrastructure_faults_are_tried_again(bench: Bench) -> None:
    """PREEMPTED sends a job back to the queue while attempts are left; FAILED ends it at the first attempt."""
    fault, data = bench.queued(max_attempts=2), bench.queued()
    assert [fault.id, data.id] == [bench.leased_job("host-1").id, bench.leased_job("host-2").id]
    assert PREEMPTED == bench.end(fault.id, 1, PREEMPTED, "out_of_memory", "host-1")
    assert FAILED == bench.end(data.id, 1, FAILED, "bad_rows", "host-2")
    assert [fault.id, None] == [row and row.id for row in (bench.lease("host-1"), bench.lease("host-2"))]


def test_the_last_attempt_of_an_infrastructure_fault_fails(bench: Bench) -> None:
    """An infrastructure fault in the last attempt ends the job with the fault's code."""
    signed = bench.queued(max_attempts=1)
    bench.leased_job()
    assert FAILED == bench.end(signed.id, 1, PREEMPTED, "out_of_memory")
    assert "out_of_memory" == bench.job(signed.id).error.code


def test_the_same_outcome_twice_succeeds_and_another_one_does_not(bench: Bench) -> None:
    """FinishJob is idempotent: the same outcome again gives the state, a different one is LEASE_LOST."""
    signed = bench.queued()
    bench.leased_job()
    assert FAILED == bench.end(signed.id, 1, FAILED, "bad_rows")
    assert FAILED == bench.end(signed.id, 1, FAILED, "bad_rows")
    with pytest.raises(LeaseLostError):
        bench.end(signed.id, 1, CANCELLED)
    assert 1 == len(bench.entries("job.end", signed.id))


def test_a_success_makes_exactly_one_candidate(bench: Bench) -> None:
    """A finished job has one version, named by its suffix, with the base's digest and the signed metrics."""
    signed = bench.queued()
    bench.leased_job()
    made = bench.artifact(signed, 1)
    for _ in range(2):
        assert SUCCEEDED == bench.finish(success(signed, 1, made))
    job = bench.job(signed.id)
    assert (signed.id, 1234, {"eval_accuracy": 0.9}) == (job.fine_tuned_model, job.trained_tokens, dict(job.metrics))
    assert 1 == bench.count("model_version") - len(bench.models)


def test_a_version_of_a_version_stands_alone_on_the_base(bench: Bench) -> None:
    """A job on a result is leased with its layer, and leaves one layer on the root base."""
    signed = bench.queued()
    bench.leased_job()
    layer = bench.artifact(signed, 1)
    bench.finish(success(signed, 1, layer))
    second = bench.queued(version=signed.id, model_layers=(layer.reference,))
    row = bench.leased_job()
    lease = bench.look(lambda connection: handover.job_lease(connection, row, bench.founded.roster))
    assert [layer.id] == [granted.object_id for granted in lease.model_layers]
    base = bench.models["blue"].id
    assert (base, signed.id) == (lease.model.object_id, bench.job(second.id).model)
    made = bench.artifact(second, 1)
    bench.finish(success(second, 1, made))
    version = bench.look(lambda connection: versions.message(connection, found(connection, second.id)))
    assert (base, [made.id]) == (version.base, [entry.object_id for entry in version.layers])
    third = bench.queued(version=second.id, model_layers=(made.reference,))
    assert second.id == bench.job(third.id).model


def found(connection: Connection, version_id: str) -> VersionRow:
    row = versions.find(connection, version_id)
    assert row is not None
    return row


def test_a_success_without_its_blob_is_refused(bench: Bench) -> None:
    """A result whose ciphertext has not arrived does not end the job."""
    signed = bench.queued()
    bench.leased_job()
    made = bench.artifact(signed, 1)
    bench.unit_of_work.run("test", lambda tx: objects.set_state(tx.connection, made.id, objects.UPLOADING))
    with pytest.raises(BlobIncompleteError):
        bench.finish(success(signed, 1, made))
    bench.set_ready(made)
    with pytest.raises(InvalidFieldError):
        bench.finish(replace_field(success(signed, 1, made), "layer_digest", "0" * 64))
    assert jobs_pb2.JOB_STATE_VALIDATING == bench.job(signed.id).state


def replace_field(request: workers_pb2.FinishJobRequest, name: str, value: str) -> workers_pb2.FinishJobRequest:
    changed = workers_pb2.FinishJobRequest()
    changed.CopyFrom(request)
    setattr(changed, name, value)
    return changed


def test_a_checkpoint_of_another_attempt_is_no_result(bench: Bench) -> None:
    """Only an export of this attempt ends the job."""
    signed = bench.queued()
    bench.leased_job()
    state = bench.artifact(signed, 1, "state")
    with pytest.raises(InvalidFieldError):
        bench.finish(success(signed, 1, state))


def test_the_next_attempt_resumes_from_the_newest_checkpoint(bench: Bench) -> None:
    """A lease after a lost worker names the checkpoint with the most steps, and the entry of its opening too."""
    signed = bench.queued()
    bench.leased_job()
    bench.artifact(signed, 1, "state", step=5)
    newest = bench.artifact(signed, 1, "state", step=8)
    bench.run_out(signed.id)
    second = bench.leased_job("host-2")
    assert newest.id == second.resume_object_id
    bench.open(signed.id, 2, "host-2")
    assert newest.sealed.trailer.digest == bench.entries("job.open", signed.id)[-1].event.detail["resume"]


def test_one_entry_for_each_opening(bench: Bench) -> None:
    """An opening asked for again is the same entry; the next attempt gets its own."""
    signed = bench.queued()
    bench.leased_job()
    first = bench.open(signed.id, 1)
    assert first == bench.open(signed.id, 1)
    bench.run_out(signed.id)
    bench.leased_job("host-2")
    second = bench.open(signed.id, 2, "host-2")
    assert [first, second] == [entry.seq for entry in bench.entries("job.open", signed.id)]


def test_events_are_numbered_without_gaps(bench: Bench) -> None:
    """Every event of a job has the next number, across attempts and reports sent twice."""
    signed = bench.queued()
    bench.leased_job()
    for _ in range(2):
        bench.report(signed.id, 1, step(1, "validate", "started"), step(2, "validate", "finished"))
    bench.report(signed.id, 1, step(2, "validate", "finished"), step(3, "train", "started"))
    assert jobs_pb2.JOB_STATE_RUNNING == bench.job(signed.id).state
    bench.run_out(signed.id)
    bench.leased_job("host-2")
    seqs = bench.event_seqs(signed.id)
    assert list(range(1, len(seqs) + 1)) == seqs
    assert 1 == len(bench.entries("job.validated", signed.id))


@pytest.mark.parametrize(
    "event",
    [
        workers_pb2.WorkerEvent(stream_seq=2, type="message", level="info", message="a gap"),
        workers_pb2.WorkerEvent(stream_seq=1, type="row", level="info"),
        workers_pb2.WorkerEvent(stream_seq=1, type="message", level="loud"),
        workers_pb2.WorkerEvent(stream_seq=1, type="message", level="info", message="x" * 201),
        workers_pb2.WorkerEvent(stream_seq=1, type="message", level="info", message="café"),
        workers_pb2.WorkerEvent(stream_seq=1, type="rows", level="info", data={"some label": 1.0}),
        step(1, "exfiltrate", "started"),
    ],
)
def test_a_report_outside_the_contract_is_refused(bench: Bench, event: workers_pb2.WorkerEvent) -> None:
    """What is no figure or short fixed word is INVALID_FIELD, and nothing of the batch is kept."""
    signed = bench.queued()
    bench.leased_job()
    before = bench.event_seqs(signed.id)
    with pytest.raises(InvalidFieldError):
        bench.report(signed.id, 1, event)
    assert before == bench.event_seqs(signed.id)


def test_a_job_past_its_authorisation_expires(bench: Bench) -> None:
    """A job that waited too long is EXPIRED and never leased."""
    signed = bench.queued()
    past = update(tables.job).values(expires_at_s=bench.founded.now - 10_000)
    bench.unit_of_work.run("test", lambda tx: tx.connection.execute(past))
    assert bench.lease() is None
    assert jobs_pb2.JOB_STATE_EXPIRED == bench.job(signed.id).state


def test_a_host_without_a_wrap_is_not_given_the_job(bench: Bench) -> None:
    """A host that was certified after the sealing holds no wrap and gets nothing; the other one does."""
    signed = bench.queued()
    grants = tables.object_grant
    gone = grants.delete().where(grants.c.recipient_key_id == bench.founded.hosts["host-1"].key_id)
    bench.unit_of_work.run("test", lambda tx: tx.connection.execute(gone))
    assert bench.lease("host-1") is None
    assert signed.id == bench.leased_job("host-2").id


def test_an_unknown_attempt_number_holds_no_lease(bench: Bench) -> None:
    """Only the attempt that was granted counts, not a higher one that a worker made up."""
    signed = bench.queued()
    row = bench.leased_job()
    assert isinstance(row, JobRow)
    with pytest.raises(LeaseLostError):
        bench.heartbeat(signed.id, 2)
