# SPDX-License-Identifier: Apache-2.0
"""When a lease is kept, when it is lost, and who is told."""

import threading

import pytest

from cloister.api.v1 import workers_pb2
from cloister.errors import ConnectError
from cloister_workers.agent.errors import LeaseLostError, Stop, StopRequestedError
from cloister_workers.agent.lease import Lease, LeaseKeeper


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def lease(clock: Clock) -> Lease:
    return Lease("job", 3, 60.0, clock, threading.Event())


def test_a_lease_is_taken_for_lost_at_80_percent(lease: Lease, clock: Clock) -> None:
    """Just before four fifths of the lease it holds, from then on it does not."""
    clock.now += 47.9
    lease.check()
    clock.now += 0.2
    with pytest.raises(LeaseLostError):
        lease.check()


def test_a_heartbeat_counts_from_when_it_was_asked(lease: Lease, clock: Clock) -> None:
    """An answer that took long does not make the lease longer than the control plane may think."""
    asked_at = clock.now
    clock.now += 40
    lease.kept(asked_at, workers_pb2.DIRECTIVE_CONTINUE)
    assert lease.left == pytest.approx(8.0)
    clock.now += 10
    assert lease.lost


def test_what_is_lost_stays_lost(lease: Lease, clock: Clock) -> None:
    """A late answer does not bring a lease back that was given up: another worker may have it."""
    lease.lose()
    lease.kept(clock.now, workers_pb2.DIRECTIVE_CONTINUE)
    assert lease.lost


def test_losing_it_is_told_once_to_everybody(lease: Lease) -> None:
    """Every action runs once, those that come later at once."""
    told: list[str] = []
    lease.on_lost(lambda: told.append("early"))
    lease.lose()
    lease.lose()
    lease.on_lost(lambda: told.append("late"))
    assert told == ["early", "late"]


@pytest.mark.parametrize(
    ("directive", "stop"), [(workers_pb2.DIRECTIVE_CANCEL, Stop.CANCEL), (workers_pb2.DIRECTIVE_PAUSE, Stop.PAUSE)]
)
def test_directives_end_the_work(
    lease: Lease, clock: Clock, directive: workers_pb2.Directive.ValueType, stop: Stop
) -> None:
    """Cancel and pause are remembered, also when the next heartbeat says to go on."""
    lease.kept(clock.now, directive)
    lease.kept(clock.now, workers_pb2.DIRECTIVE_CONTINUE)
    with pytest.raises(StopRequestedError) as raised:
        lease.check_going()
    assert raised.value.stop is stop


def test_draining_does_not_end_the_work(lease: Lease, clock: Clock) -> None:
    """DRAIN lets this work go on and takes nothing after it."""
    lease.kept(clock.now, workers_pb2.DIRECTIVE_DRAIN)
    lease.check_going()
    assert lease.draining


def test_a_beat_without_an_answer_is_repeated_sooner(lease: Lease, clock: Clock) -> None:
    """No answer is no loss, but the next try comes after a quarter of the interval; a refusal is the loss."""

    def silent(_: Lease, timeout: float) -> workers_pb2.Directive.ValueType:
        raise ConnectError("no answer")

    def refused(_: Lease, timeout: float) -> workers_pb2.Directive.ValueType:
        raise LeaseLostError("lost")

    assert LeaseKeeper(lease, silent, clock).beat_once(15.0) == pytest.approx(3.75)
    assert not lease.lost
    LeaseKeeper(lease, refused, clock).beat_once(15.0)
    assert lease.lost


def test_a_beat_never_waits_longer_than_the_lease(lease: Lease, clock: Clock) -> None:
    """The deadline of a heartbeat ends with what is left of the lease."""
    deadlines: list[float] = []

    def beat(_: Lease, timeout: float) -> workers_pb2.Directive.ValueType:
        deadlines.append(timeout)
        return workers_pb2.DIRECTIVE_CONTINUE

    clock.now += 46
    LeaseKeeper(lease, beat, clock).beat_once(15.0)
    assert deadlines == [pytest.approx(2.0)]


def test_the_keeper_ends_a_lease_that_it_cannot_keep(lease: Lease, clock: Clock) -> None:
    """Without any answer the keeper itself declares the lease lost, whatever the main thread waits for."""
    lost = threading.Event()
    lease.on_lost(lost.set)

    def silent(_: Lease, timeout: float) -> workers_pb2.Directive.ValueType:
        clock.now += 50
        raise ConnectError("no answer")

    with LeaseKeeper(lease, silent, clock):
        assert lost.wait(10)
