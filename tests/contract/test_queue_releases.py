# SPDX-License-Identifier: Apache-2.0
"""Releases as work, on SQLite and on PostgreSQL."""

from collections.abc import Callable

import pytest
from sqlalchemy import update

from cloister.api.v1 import models_pb2, workers_pb2
from cloister_server.database import tables
from cloister_server.database.rows import ReleaseRow
from cloister_server.errors import LeaseLostError
from queue_bench import Bench
from site_objects import success


@pytest.fixture
def release(bench: Bench) -> ReleaseRow:
    """A release that host-1 has leased as attempt 1."""
    signed = bench.queued()
    bench.leased_job()
    made, result = bench.artifact_with_result(signed, 1)
    bench.finish(success(signed, 1, made))
    bench.released(signed, made, result)
    taken = bench.lease("host-1")
    assert isinstance(taken, ReleaseRow)
    return taken


def refused_by_host(release_id: str, attempt: int, check: str = "POLICY_NOT_MET") -> workers_pb2.FinishReleaseRequest:
    return workers_pb2.FinishReleaseRequest(release_id=release_id, attempt=attempt, refusal=check)


def test_a_lost_release_is_given_to_another_host(bench: Bench, release: ReleaseRow) -> None:
    """A release whose host is lost waits again; the stale host can neither keep, open nor finish it."""
    until = update(tables.release).values(lease_until=1)
    bench.unit_of_work.run("test", lambda tx: tx.connection.execute(until))
    second = bench.lease("host-2")
    assert isinstance(second, ReleaseRow)
    assert (release.id, 2) == (second.id, second.attempt)
    writes: list[Callable[[], object]] = [
        lambda: bench.heartbeat(release.id, 1),
        lambda: bench.open(release.id, 1),
        lambda: bench.finish_release(refused_by_host(release.id, 1)),
    ]
    for write in writes:
        with pytest.raises(LeaseLostError):
            write()


def test_a_refusal_of_the_key_agent_is_final(bench: Bench, release: ReleaseRow) -> None:
    """What the key agent refuses is REFUSED with its check, once, however often the host says it."""
    for _ in range(2):
        state = bench.finish_release(refused_by_host(release.id, 1))
        assert models_pb2.RELEASE_STATE_REFUSED == state
    assert ["denied"] == [entry.event.outcome for entry in bench.entries("release.end", release.id)]
    assert bench.lease("host-1") is None


def test_a_release_is_not_lost_for_ever_in_circles(bench: Bench, release: ReleaseRow) -> None:
    """After several lost hosts a release is refused as WORKER_LOST, and its opening has an end in the log."""
    for attempt in range(2, 6):
        taken = bench.lease("host-1")
        assert isinstance(taken, ReleaseRow)
        assert attempt == taken.attempt
    assert bench.lease("host-1") is None
    assert 1 == len(bench.entries("release.end", release.id))
