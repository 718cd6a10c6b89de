# SPDX-License-Identifier: Apache-2.0
"""Places in the queue and forecast starts, on SQLite and on PostgreSQL."""

from __future__ import annotations

from sqlalchemy import Connection, event, select, update

from cloister.api.v1 import jobs_pb2, operations_pb2, workers_pb2
from cloister_server.database import tables
from cloister_server.database.engine import now_ms
from cloister_server.operations import maintenance, quotas, workers
from cloister_server.pages import Page
from cloister_server.queue import jobs, views
from cloister_server.queue.outlook import Outlook
from queue_bench import Bench
from served_site import SITE

MINUTE = 60_000
LONG = 10 * MINUTE
FAILED = jobs_pb2.JOB_STATE_FAILED


def heard(bench: Bench, *hosts: str) -> None:
    """The hosts ask for work."""
    for host in hosts:
        bench.run(host, lambda tx, call: workers.note(tx, call, workers_pb2.LeaseWorkRequest()))


def ended_attempt(bench: Bench, milliseconds: int) -> None:
    """One job of the pool has run for so long."""
    done = bench.queued()
    bench.leased_job()
    bench.end(done.id, 1, FAILED, "INVALID_ROWS")
    attempt = tables.job_attempt.c
    length = update(tables.job_attempt).where(attempt.job_id == done.id)
    length = length.values(leased_at=attempt.ended_at - milliseconds)
    bench.unit_of_work.run("test", lambda tx: tx.connection.execute(length))


def starts(bench: Bench, *ids: str) -> list[int | None]:
    """Forecast starts in milliseconds from now, by the database's clock."""

    def read(connection: Connection) -> list[int | None]:
        outlook = Outlook(connection)
        rows = [views.find(connection, job_id) for job_id in ids]
        found = [views.message(connection, row, outlook) for row in rows if row is not None]
        first = min((m.forecast_start.ToMilliseconds() for m in found if m.HasField("forecast_start")), default=0)
        return [m.forecast_start.ToMilliseconds() - first if m.HasField("forecast_start") else None for m in found]

    return bench.look(read)


def clock(bench: Bench) -> int:
    return bench.look(lambda connection: int(connection.execute(select(now_ms(connection))).scalar_one()))


def test_without_a_host_nothing_is_told(bench: Bench) -> None:
    """Where no host was heard of, a job has its place and no time."""
    ended_attempt(bench, LONG)
    ids = [bench.queued().id for _ in range(2)]
    assert ([None, None], 1) == (starts(bench, *ids), bench.job(ids[1]).jobs_ahead)


def test_a_free_host_takes_the_first_job_now(bench: Bench) -> None:
    """The first starts now, though nobody knows yet how long jobs take; so of the second nothing is told."""
    heard(bench, "host-1")
    ids = [bench.queued().id for _ in range(2)]
    before = clock(bench)
    first = bench.job(ids[0]).forecast_start.ToMilliseconds()
    assert before <= first <= clock(bench)
    assert [0, None] == starts(bench, *ids)


def test_jobs_follow_each_other_by_the_mean_of_recent_attempts(bench: Bench) -> None:
    """On two hosts the third and fourth start a mean duration after the first two, in the queue's own order."""
    ended_attempt(bench, LONG)
    ended_attempt(bench, 3 * LONG)
    heard(bench, "host-1", "host-2")
    ids = [bench.queued().id for _ in range(4)]
    urgent = bench.queued(priority=5).id
    assert [0, 2 * LONG, 2 * LONG, 4 * LONG, 0] == starts(bench, ids[0], ids[1], ids[2], ids[3], urgent)


def test_a_lost_worker_says_nothing_of_durations(bench: Bench) -> None:
    """The attempt of a worker that was lost does not count in the mean."""
    lost = bench.queued(max_attempts=1)
    bench.leased_job()
    bench.run_out(lost.id)
    bench.sweep()
    heard(bench, "host-1")
    assert [0, None] == starts(bench, bench.queued().id, bench.queued().id)


def test_the_trainers_estimate_goes_before_the_mean(bench: Bench) -> None:
    """A job waits for what the running one says of its end, from when it said so."""
    ended_attempt(bench, LONG)
    heard(bench, "host-1")
    running = bench.queued()
    bench.leased_job()
    told = jobs_pb2.Progress(label="train", current=1, total=10, eta_seconds=900)
    bench.report(running.id, 1, workers_pb2.WorkerEvent(stream_seq=1, type="progress", level="info", progress=told))
    waiting = bench.queued()
    at = bench.job(running.id).progress.updated_at.ToMilliseconds()
    assert at + 900_000 == bench.job(waiting.id).forecast_start.ToMilliseconds()


def test_a_running_job_takes_the_mean_and_no_less_than_nothing(bench: Bench) -> None:
    """Without an estimate a host is free a mean duration after its lease began; one that is late is free now."""
    ended_attempt(bench, LONG)
    heard(bench, "host-1")
    running = bench.queued()
    bench.leased_job()
    waiting = bench.queued().id
    attempt = tables.job_attempt.c
    leased = bench.look(lambda c: c.execute(select(attempt.leased_at).where(attempt.job_id == running.id)).scalar_one())
    assert leased + LONG == bench.job(waiting).forecast_start.ToMilliseconds()
    earlier = update(tables.job_attempt).where(attempt.job_id == running.id).values(leased_at=leased - 5 * LONG)
    bench.unit_of_work.run("test", lambda tx: tx.connection.execute(earlier))
    before = clock(bench)
    assert before <= bench.job(waiting).forecast_start.ToMilliseconds() <= clock(bench)


def test_an_estimate_of_an_earlier_attempt_is_old(bench: Bench) -> None:
    """What an attempt said before its worker was lost does not count for the next one."""
    ended_attempt(bench, LONG)
    running = bench.queued()
    bench.leased_job()
    told = jobs_pb2.Progress(label="train", current=1, total=10, eta_seconds=1)
    bench.report(running.id, 1, workers_pb2.WorkerEvent(stream_seq=1, type="progress", level="info", progress=told))
    bench.run_out(running.id)
    assert 2 == bench.leased_job().attempt
    heard(bench, "host-1")
    later = update(tables.job_attempt).where(tables.job_attempt.c.attempt == 2)
    later = later.values(leased_at=tables.job_attempt.c.leased_at + MINUTE)
    bench.unit_of_work.run("test", lambda tx: tx.connection.execute(later))
    attempt = tables.job_attempt.c
    leased = bench.look(lambda c: c.execute(select(attempt.leased_at).where(attempt.attempt == 2)).scalar_one())
    assert leased + LONG == bench.job(bench.queued().id).forecast_start.ToMilliseconds()


def test_hosts_out_of_order_are_not_counted(bench: Bench) -> None:
    """A host that is cordoned or drained, or was not heard of for minutes, takes no job of the forecast."""
    heard(bench, "host-1", "host-2")
    ids = [bench.queued().id for _ in range(2)]
    assert [0, 0] == starts(bench, *ids)
    roster, now = bench.founded.roster, bench.founded.now
    request = operations_pb2.SetWorkerModeRequest(host="host-1", mode=operations_pb2.WORKER_MODE_DRAINING)
    bench.run("dana", lambda tx, call: workers.set_mode(tx, call, roster, request, now))
    assert [0, None] == starts(bench, *ids)
    seen = tables.worker_host.c.last_seen
    silent = update(tables.worker_host).values(last_seen=seen - workers.LATELY_MS)
    bench.unit_of_work.run("test", lambda tx: tx.connection.execute(silent))
    assert [None, None] == starts(bench, *ids)


def test_in_maintenance_nothing_is_told(bench: Bench) -> None:
    """No lease is given, and nobody can say from when again."""
    heard(bench, "host-1")
    waiting = bench.queued().id
    begin = operations_pb2.BeginMaintenanceRequest(reason="new disks")
    bench.run("dana", lambda tx, call: maintenance.begin(tx, call, SITE, begin))
    assert [None] == starts(bench, waiting)


def test_a_team_at_its_limit_is_passed(bench: Bench) -> None:
    """A team that runs as many as it may is told no time, and others start without waiting for it."""
    running = bench.queued("alice")
    assert running.id == bench.leased_job("host-1").id
    limits = operations_pb2.SetQuotaRequest(team="blue", limits=operations_pb2.Quota(running_jobs=1))
    bench.run("dana", lambda tx, call: quotas.set_limits(tx, call, bench.founded.roster, limits))
    heard(bench, "host-1", "host-2")
    urgent, other = bench.queued("alice", priority=5).id, bench.queued("gina").id
    assert ([None, 0], 1) == (starts(bench, urgent, other), bench.job(other).jobs_ahead)


def test_only_waiting_jobs_have_a_forecast(bench: Bench) -> None:
    """A job that runs or has ended has neither a place nor a time."""
    heard(bench, "host-1")
    running, ended = bench.queued(), bench.queued()
    bench.leased_job()
    bench.cancel(ended.id)
    assert [None, None] == starts(bench, running.id, ended.id)


def test_a_list_looks_at_each_queue_once(bench: Bench) -> None:
    """However many waiting jobs a page shows, the order of their pool is asked for once."""
    ids = [bench.queued().id for _ in range(6)]
    asked: list[str] = []

    def count(_: object, __: object, statement: str, *___: object) -> None:
        if "used" in statement and "ORDER BY job.priority DESC" in statement:
            asked.append(statement)

    engine = bench.database.writer
    event.listen(engine, "before_cursor_execute", count)
    try:
        page = bench.run("alice", lambda tx, call: jobs.list_page(tx, call, Page(100, None)))
    finally:
        event.remove(engine, "before_cursor_execute", count)
    assert {job_id: ahead for ahead, job_id in enumerate(ids)} == {job.id: job.jobs_ahead for job in page.jobs}
    assert 1 == len(asked)
