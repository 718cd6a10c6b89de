# SPDX-License-Identifier: Apache-2.0
"""What a team may have at once, on SQLite and on PostgreSQL: the last one is taken, the next one refused."""

from __future__ import annotations

import pytest
from sqlalchemy import update

from cloister.api.v1 import operations_pb2, workers_pb2
from cloister.evidence.entry import Entry
from cloister_audit import query
from cloister_server.database import tables
from cloister_server.errors import InvalidFieldError, NotFoundError, QuotaExceededError
from cloister_server.operations import quotas, workers
from queue_bench import Bench
from site_objects import owned

HOUR_MS = 3600 * 1000


def limit(bench: Bench, team: str = "blue", **limits: int) -> operations_pb2.TeamUsage:
    request = operations_pb2.SetQuotaRequest(team=team, limits=operations_pb2.Quota(**limits))
    return bench.run("dana", lambda tx, call: quotas.set_limits(tx, call, bench.founded.roster, request))


def listed(bench: Bench, person: str) -> dict[str, operations_pb2.TeamUsage]:
    found = bench.run(person, lambda tx, call: quotas.list_usage(tx, call, bench.founded.roster))
    return {usage.team: usage for usage in found}


def refused(exceeded: pytest.ExceptionInfo[QuotaExceededError]) -> tuple[str, str, str]:
    found = exceeded.value.metadata
    assert "an administrator of the site can raise it" in str(exceeded.value)
    return found["quota"], found["limit"], found["used"]


def test_waiting_jobs_are_limited(bench: Bench) -> None:
    """At the limit a submission is refused with the figure; another team's is not, nor one that was taken before."""
    limit(bench, queued_jobs=2)
    first, _ = bench.queued(), bench.queued()
    with pytest.raises(QuotaExceededError) as exceeded:
        bench.queued()
    assert ("queued_jobs", "2", "2") == refused(exceeded)
    assert first.id == bench.submit(first).id
    bench.queued("gina")
    bench.leased_job()
    bench.queued()


def test_running_jobs_are_limited_by_waiting(bench: Bench) -> None:
    """A team that runs as many as it may waits, and another team's later job goes first."""
    limit(bench, running_jobs=1)
    bench.queued(priority=5)
    second = bench.queued(priority=5)
    held = bench.leased_job("host-1")
    assert bench.lease("host-2") is None
    other = bench.queued("gina")
    assert other.id == bench.leased_job("host-2").id
    assert 1 == bench.look(lambda c: quotas.usage(c, "blue")).used.running_jobs
    limit(bench)
    assert {second.id} == {bench.leased_job("host-2").id} - {held.id}


def test_a_place_is_counted_again_when_it_is_taken(bench: Bench) -> None:
    """Of two hosts that picked jobs of one team at once, the second finds no place left."""
    limit(bench, running_jobs=1)
    bench.queued()
    assert bench.run("host-1", lambda tx, call: quotas.may_run(tx.connection, "blue"))
    bench.leased_job()
    assert not bench.run("host-2", lambda tx, call: quotas.may_run(tx.connection, "blue"))


def test_stored_bytes_are_limited(bench: Bench) -> None:
    """A dataset or model beyond the limit is refused; one that fits exactly is taken."""
    used = bench.look(lambda c: quotas.usage(c, "blue")).used.stored_bytes
    assert 2000 == used
    limit(bench, stored_bytes=used + 1000)
    for kind in ("dataset", "model"):
        with pytest.raises(QuotaExceededError) as exceeded:
            bench.create("alice", owned(bench.founded, "alice", kind, size=1001))
        assert ("stored_bytes", "3000", "2000") == refused(exceeded)
    bench.create("alice", owned(bench.founded, "alice", size=1000))
    bench.create("gina", owned(bench.founded, "gina", size=5000))


def test_results_are_never_refused(bench: Bench) -> None:
    """A job that was let in ends with its result, whatever its team has stored."""
    job = bench.queued()
    held = bench.leased_job()
    limit(bench, stored_bytes=0)
    made = bench.artifact(job, held.attempt)
    assert 3000 <= bench.look(lambda c: quotas.usage(c, "blue")).used.stored_bytes
    assert made.id


def test_gpu_time_is_limited(bench: Bench) -> None:
    """Lease time counts as often as the host has GPUs; used up, a submission is refused."""
    request = workers_pb2.LeaseWorkRequest(gpus=4)
    bench.run("host-1", lambda tx, call: workers.note(tx, call, request))
    bench.queued()
    held = bench.leased_job("host-1")
    with bench.database.writer.begin() as connection:
        attempt = tables.job_attempt
        leased_at = attempt.c.leased_at
        connection.execute(
            update(attempt).where(attempt.c.job_id == held.id).values(leased_at=leased_at - HOUR_MS, ended_at=leased_at)
        )
    assert 4 * 3600 == bench.look(lambda c: quotas.usage(c, "blue")).used.gpu_seconds
    limit(bench, gpu_seconds=4 * 3600)
    with pytest.raises(QuotaExceededError) as exceeded:
        bench.queued()
    assert ("gpu_seconds", "14400", "14400") == refused(exceeded)
    limit(bench, gpu_seconds=4 * 3600 + 1)
    bench.queued()


def test_everybody_sees_their_own(bench: Bench) -> None:
    """An admin sees every team with its limits, a member their own alone."""
    limit(bench, queued_jobs=7)
    assert {"blue", "green", "office"} == set(listed(bench, "dana"))
    seen = listed(bench, "alice")
    assert ["blue"] == list(seen)
    assert (7, False) == (seen["blue"].limits.queued_jobs, seen["blue"].limits.HasField("running_jobs"))


def test_limits_are_replaced_and_logged(bench: Bench) -> None:
    """A limit that is left out is lifted; each change is an entry with its figures; zero is a limit."""
    limit(bench, queued_jobs=1, stored_bytes=5)
    found = limit(bench, running_jobs=0)
    assert (True, False) == (found.limits.HasField("running_jobs"), found.limits.HasField("queued_jobs"))
    entries = bench.look(lambda c: query.entries(c, query.Filter(action="quota.set"), -1, 10))
    details = [dict(Entry.parse(body).event.detail) for _, body in entries]
    assert [{"queued_jobs": "1", "stored_bytes": "5"}, {"running_jobs": "0"}] == details


def test_only_teams_of_the_roster_have_limits(bench: Bench) -> None:
    """Another name is not found, and a negative figure is refused."""
    with pytest.raises(NotFoundError):
        limit(bench, "purple", queued_jobs=1)
    with pytest.raises(InvalidFieldError):
        limit(bench, queued_jobs=-1)
