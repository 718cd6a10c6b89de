# SPDX-License-Identifier: Apache-2.0
"""A worker host whose control plane was restored from a backup; the key agent is real."""

from __future__ import annotations

from dataclasses import replace

import grpc

from cloister.api.v1 import jobs_pb2
from cloister.evidence.entry import Actor, Event, Subject
from fake_run import good_trainer, run
from fake_site import CallError, FakeHost

BEHIND = "LOG_BEHIND_CALLER"


def grow(host: FakeHost, entries: int) -> None:
    for _ in range(entries):
        host.site.log.append(Event("site.read", Actor("control-plane", "system"), Subject("log", "test")))


def run_one(host: FakeHost) -> tuple[jobs_pb2.JobState.ValueType, str]:
    host.scripts.append(good_trainer)
    host.control.finished.clear()
    host.control.events.clear()
    ended = run(host)
    assert ended is not None
    return ended.state, ended.error.message


def restore(host: FakeHost, size: int, *, signed: bool) -> None:
    """Cut the log to a backup; with `signed` the root names the head there."""
    del host.site.log.entries[size:]
    note = host.site.log.checkpoint().decode()
    roster = host.site.roster
    if signed:
        host.site.roster = replace(roster, version=roster.version + 1, log_restored=(*roster.log_restored, note))
    grow(host, 1)


def behind() -> CallError:
    return CallError(grpc.StatusCode.FAILED_PRECONDITION, BEHIND)


def test_a_restored_log_without_the_roots_word_opens_nothing(host: FakeHost) -> None:
    """The job fails with ROLLBACK, and no trainer is started."""
    grow(host, 8)
    assert jobs_pb2.JOB_STATE_SUCCEEDED == run_one(host)[0]
    restore(host, 3, signed=False)
    host.control.fail["RequestOpening"] = [behind()]
    state, message = run_one(host)
    assert (jobs_pb2.JOB_STATE_FAILED, True) == (state, "ROLLBACK" in message)
    assert 1 == len(host.processes)


def test_a_restored_log_with_the_roots_word_goes_on(host: FakeHost) -> None:
    """The agent hands the roster over first, and the key agent opens under the restored log."""
    grow(host, 8)
    run_one(host)
    restore(host, 3, signed=True)
    host.control.fail["RequestOpening"] = [behind()]
    assert jobs_pb2.JOB_STATE_SUCCEEDED == run_one(host)[0]


def test_a_restored_log_that_has_grown_goes_on(host: FakeHost) -> None:
    """Nothing tells the control plane that the host is behind; the newer roster makes the agent ask again."""
    grow(host, 8)
    run_one(host)
    restore(host, 3, signed=True)
    grow(host, 30)
    assert jobs_pb2.JOB_STATE_SUCCEEDED == run_one(host)[0]


def test_the_roots_word_holds_once_at_a_host(host: FakeHost) -> None:
    """A second cut to the same head is a rollback again."""
    grow(host, 8)
    run_one(host)
    restore(host, 3, signed=True)
    grow(host, 30)
    run_one(host)
    restore(host, 3, signed=False)
    host.control.fail["RequestOpening"] = [behind()]
    state, message = run_one(host)
    assert (jobs_pb2.JOB_STATE_FAILED, True) == (state, "ROLLBACK" in message)
