# SPDX-License-Identifier: Apache-2.0
"""Pausing and going on, on SQLite and on PostgreSQL."""

from __future__ import annotations

import pytest
from sqlalchemy import update

from cloister.api.v1 import jobs_pb2, workers_pb2
from cloister_server.database import tables
from cloister_server.errors import NotFoundError, WrongStateError
from queue_bench import Bench

PAUSED, PAUSING, QUEUED, RUNNING, PREEMPTED, CANCELLED, SUCCEEDED = (
    jobs_pb2.JobState.Value(f"JOB_STATE_{name}")
    for name in ("PAUSED", "PAUSING", "QUEUED", "RUNNING", "PREEMPTED", "CANCELLED", "SUCCEEDED")
)


def running(bench: Bench, max_attempts: int = 3) -> str:
    """A job that trains."""
    signed = bench.queued(max_attempts=max_attempts)
    taken = bench.leased_job()
    step = jobs_pb2.JobStep(name="validate", status="finished")
    bench.report(signed.id, taken.attempt, workers_pb2.WorkerEvent(stream_seq=1, type="step", level="info", step=step))
    assert RUNNING == bench.job(signed.id).state
    return str(signed.id)


def test_a_waiting_job_pauses_at_once(bench: Bench) -> None:
    """A queued job pauses without a worker, is leased to nobody, and waits again once it goes on."""
    signed = bench.queued()
    assert PAUSED == bench.pause(signed.id).state
    assert PAUSED == bench.pause(signed.id).state
    assert bench.lease() is None
    assert QUEUED == bench.resume(signed.id).state
    assert QUEUED == bench.resume(signed.id).state
    assert signed.id == bench.leased_job().id
    assert (1, 1) == tuple(len(bench.entries(f"job.{what}", signed.id)) for what in ("pause", "resume"))


def test_a_training_job_pauses_when_its_worker_has_stopped(bench: Bench) -> None:
    """The worker hears of the pause with its next heartbeat; the job is paused once it says so, and has not ended."""
    job_id = running(bench)
    assert PAUSING == bench.pause(job_id).state
    assert workers_pb2.DIRECTIVE_PAUSE == bench.heartbeat(job_id, 1)
    assert PAUSED == bench.end(job_id, 1, PAUSED)
    assert 0 == bench.job(job_id).finished_at.seconds
    assert [] == bench.entries("job.end", job_id)
    bench.resume(job_id)
    assert (job_id, 2) == (bench.leased_job().id, 2)


def test_a_worker_that_is_lost_while_it_pauses_leaves_the_job_paused(bench: Bench) -> None:
    """The team wanted the GPU back: a lost worker does not put the job back into the queue."""
    job_id = running(bench)
    bench.pause(job_id)
    bench.run_out(job_id)
    bench.sweep()
    assert PAUSED == bench.job(job_id).state


def test_a_host_that_could_not_pause_leaves_the_job_paused(bench: Bench) -> None:
    """An infrastructure fault during a pause is the pause."""
    job_id = running(bench)
    bench.pause(job_id)
    assert PAUSED == bench.end(job_id, 1, PREEMPTED, "trainer_stuck")


def test_a_paused_job_is_cancelled_at_once(bench: Bench) -> None:
    """Nobody holds it, so it ends without a worker."""
    signed = bench.queued()
    bench.pause(signed.id)
    assert CANCELLED == bench.cancel(signed.id).state


def test_a_paused_job_ends_with_its_authorisation(bench: Bench) -> None:
    """It could never go on, so it does not hold its datasets for ever."""
    signed = bench.queued()
    bench.pause(signed.id)
    past = update(tables.job).values(expires_at_s=bench.founded.now - 10_000)
    bench.unit_of_work.run("test", lambda tx: tx.connection.execute(past))
    assert 1 == bench.sweep()
    job = bench.job(signed.id)
    assert (jobs_pb2.JOB_STATE_EXPIRED, "paused until its authorisation expired") == (job.state, job.state_reason)


def test_without_attempts_left_nothing_pauses(bench: Bench) -> None:
    """A job that could not go on is not paused, so that no step is lost."""
    job_id = running(bench, max_attempts=1)
    with pytest.raises(WrongStateError, match="max_attempts"):
        bench.pause(job_id)
    assert RUNNING == bench.job(job_id).state


def test_what_is_not_training_does_not_pause(bench: Bench) -> None:
    """A job whose rows are being checked has no step to stop at, and an ended one nothing to stop."""
    signed = bench.queued()
    bench.leased_job()
    with pytest.raises(WrongStateError):
        bench.pause(signed.id)
    bench.cancel(signed.id)
    bench.end(signed.id, 1, CANCELLED)
    for call in (bench.pause, bench.resume):
        with pytest.raises(WrongStateError):
            call(signed.id)


def test_another_teams_job_is_not_found(bench: Bench) -> None:
    """Members of other teams can neither pause a job nor learn that it is there."""
    signed = bench.queued("alice")
    for call in (bench.pause, bench.resume):
        with pytest.raises(NotFoundError):
            call(signed.id, "gina")
