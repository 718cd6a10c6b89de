# SPDX-License-Identifier: Apache-2.0
"""How an attempt is ended from outside, by a lost lease, or by a trainer that breaks its protocol."""

import json
import os
import threading
from collections.abc import Callable

from cloister.api.v1 import jobs_pb2, workers_pb2
from cloister_workers.agent.lease import Lease
from cloister_workers.agent.runner import run_job
from cloister_workers.protocol import (
    Cancel,
    CancelledAt,
    Checkpoint,
    Evaluation,
    EvaluationPhase,
    Pause,
    PausedAt,
    Ready,
)
from cloister_workers.protocol import Result as ResultMessage
from fake_run import ACCURACY, ROWS, bundle, run, run_lease
from fake_site import LEASE_SECONDS, FakeHost, job_lease, lease_lost, unavailable
from fake_trainer import TrainerSide


def run_with_directive(
    host: FakeHost, directive: workers_pb2.Directive.ValueType, trainer: Callable[[TrainerSide, Lease], None]
) -> workers_pb2.FinishJobRequest:
    """Run a job whose directive comes when the trainer has its inputs."""
    leased = job_lease(host.control, host.site.job(training=host.site.dataset(ROWS)))
    lease = Lease(leased.job_id, 1, 10 * LEASE_SECONDS, host.host.clock, threading.Event())

    def script(side: TrainerSide) -> None:
        side.begin()
        lease.kept(host.now[0], directive)
        trainer(side, lease)

    host.scripts.append(script)
    run_job(host.host, leased, lease)
    return host.control.finished[0]


def test_cancelling_reaches_the_trainer(host: FakeHost) -> None:
    """A directive to cancel is passed on, and the attempt ends as cancelled."""

    def trainer(side: TrainerSide, lease: Lease) -> None:
        assert isinstance(side.channel.receive().message, Cancel)
        side.channel.send(CancelledAt(step=3))

    ended = run_with_directive(host, workers_pb2.DIRECTIVE_CANCEL, trainer)
    assert (ended.state, ended.error.code) == (jobs_pb2.JOB_STATE_CANCELLED, "")


def test_a_directive_before_training_starts_no_trainer(host: FakeHost) -> None:
    """A job cancelled while its data are fetched ends at once."""
    leased = job_lease(host.control, host.site.job())
    lease = Lease(leased.job_id, 1, LEASE_SECONDS, host.host.clock, threading.Event())
    lease.kept(host.now[0], workers_pb2.DIRECTIVE_CANCEL)
    run_job(host.host, leased, lease)
    assert host.control.finished[0].state == jobs_pb2.JOB_STATE_CANCELLED
    assert host.processes == []


def test_pausing_keeps_the_checkpoint(host: FakeHost) -> None:
    """A directive to pause ends the attempt as paused, with its checkpoint stored."""

    def trainer(side: TrainerSide, lease: Lease) -> None:
        assert isinstance(side.channel.receive().message, Pause)
        side.send_bundle(Checkpoint(step=1, metrics={}), bundle({"state.json": b"{}"}))
        side.channel.send(PausedAt(step=1))

    ended = run_with_directive(host, workers_pb2.DIRECTIVE_PAUSE, trainer)
    assert ended.state == jobs_pb2.JOB_STATE_PAUSED
    assert [artifact.kind for artifact in host.control.artifacts] == [workers_pb2.ARTIFACT_KIND_STATE]


def test_a_trainer_that_ignores_a_cancel_is_ended(host: FakeHost) -> None:
    """After its time of grace the trainer is killed and the attempt cancelled."""

    def trainer(side: TrainerSide, lease: Lease) -> None:
        assert isinstance(side.channel.receive().message, Cancel)
        host.now[0] += 61.0
        side.channel.receive()

    assert run_with_directive(host, workers_pb2.DIRECTIVE_CANCEL, trainer).state == jobs_pb2.JOB_STATE_CANCELLED


def test_a_lost_lease_ends_everything_in_silence(host: FakeHost) -> None:
    """When the control plane says that the lease is lost, the trainer dies and nothing more is written."""

    def trainer(side: TrainerSide) -> None:
        side.begin()
        host.control.fail["CreateArtifact"] = [lease_lost()]
        side.send_bundle(ResultMessage(step=2, metrics=ACCURACY, trained_tokens=200), bundle())
        side.channel.receive()

    host.scripts.append(trainer)
    assert run(host) is None
    assert host.control.uploads == {}
    assert {"event": "lease_lost", "job": host.log[0]["job"], "attempt": 1} in host.log


def test_a_lease_without_news_is_given_up(host: FakeHost) -> None:
    """After 80 percent of the lease without a heartbeat's answer nothing is written, though nobody said so."""

    def trainer(side: TrainerSide) -> None:
        side.begin()
        host.control.fail["Heartbeat"] = [unavailable()] * 1000
        host.now[0] += 0.81 * LEASE_SECONDS
        side.send_bundle(ResultMessage(step=2, metrics=ACCURACY, trained_tokens=200), bundle())
        side.channel.receive()

    host.scripts.append(trainer)
    assert run(host) is None
    assert host.control.artifacts == []


def test_a_host_that_shuts_down_hands_the_job_back(host: FakeHost) -> None:
    """SIGTERM ends the trainer and gives the attempt back for another host."""
    stop = threading.Event()

    def trainer(side: TrainerSide) -> None:
        side.begin()
        stop.set()
        side.channel.receive()

    host.scripts.append(trainer)
    ended = run(host, shutdown=stop)
    assert ended is not None
    assert (ended.state, ended.error.code) == (jobs_pb2.JOB_STATE_PREEMPTED, "HOST_STOPPED")


def test_a_trainer_outside_the_protocol_is_ended(host: FakeHost) -> None:
    """A message beyond the closed schema fails the job: it may be data on its way out."""

    def trainer(side: TrainerSide) -> None:
        side.begin()
        body = json.dumps({"type": "ready", "text": "CANARY"}).encode()
        side.channel._socket.sendall(len(body).to_bytes(4, "big") + body)
        side.channel.receive()

    host.scripts.append(trainer)
    ended = run(host)
    assert ended is not None
    assert (ended.state, ended.error.code) == (jobs_pb2.JOB_STATE_FAILED, "PROTOCOL")
    assert "CANARY" not in ended.error.message


def test_a_trainer_that_talks_too_much_is_ended(host: FakeHost) -> None:
    """Numbers could carry data too, so their rate is bounded."""

    def trainer(side: TrainerSide) -> None:
        side.begin()
        while True:
            side.channel.send(Evaluation(phase=EvaluationPhase.DURING, step=1, metrics={}))

    host.scripts.append(trainer)
    ended = run(host)
    assert ended is not None
    assert (ended.state, ended.error.code) == (jobs_pb2.JOB_STATE_FAILED, "PROTOCOL")
    assert len(host.control.events) < 500


def test_words_before_the_start_are_refused(host: FakeHost) -> None:
    """A trainer that reports before it was given the job is ended."""

    def trainer(side: TrainerSide) -> None:
        side.channel.send(CancelledAt(step=1))
        side.channel.receive()

    host.scripts.append(trainer)
    ended = run(host)
    assert ended is not None
    assert ended.error.code == "PROTOCOL"


def test_a_trainer_may_leave_an_input_unread(host: FakeHost) -> None:
    """A trainer that uses only the first rows closes the pipe, and the job goes on."""

    def trainer(side: TrainerSide) -> None:
        side.channel.send(Ready())
        for fd in side.channel.receive().fds:
            os.read(fd, 10)
            os.close(fd)
        side.send_bundle(ResultMessage(step=2, metrics=ACCURACY, trained_tokens=200), bundle())

    host.scripts.append(trainer)
    leased = job_lease(host.control, host.site.job(training=host.site.dataset(b"x" * 2_000_000)))
    ended = run_lease(host, leased)
    assert ended is not None
    assert ended.state == jobs_pb2.JOB_STATE_SUCCEEDED


def test_a_wrap_that_does_not_open_ends_the_trainer_before_it_sees_an_end(host: FakeHost) -> None:
    """A stream that cannot flow is never closed in front of a living trainer, and the evidence is to blame."""
    job = host.site.job()
    leased = job_lease(host.control, job)
    leased.training.wrap.wrap = host.site.dataset().wrap_for(host.site.hosts["host-1"])

    def trainer(side: TrainerSide) -> None:
        side.begin()
        side.send_bundle(ResultMessage(step=2, metrics=ACCURACY, trained_tokens=200), bundle())

    host.scripts.append(trainer)
    ended = run_lease(host, leased)
    assert ended is not None
    assert (ended.state, ended.error.code) == (jobs_pb2.JOB_STATE_FAILED, "EVIDENCE_REFUSED")
    assert "(WRONG_RECIPIENT)" in ended.error.message
