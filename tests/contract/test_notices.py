# SPDX-License-Identifier: Apache-2.0
"""The outbox of completion notices, on SQLite and on PostgreSQL."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass

import pytest
from sqlalchemy import Connection, select, update

from cloister.api.v1 import jobs_pb2
from cloister_audit.errors import AuditError
from cloister_server.database import tables
from cloister_server.database.engine import Database
from cloister_server.database.unit_of_work import Transaction, UnitOfWork
from cloister_server.errors import AuditUnavailableError
from cloister_server.notices.outbox import NoticeRow, Outbox
from cloister_server.queue import expiry
from queue_bench import Bench
from served_site import Founded

LEASE = 40.0
DAY = 86_400.0


@dataclass
class Clock:
    """Milliseconds that only a test moves."""

    now: int = 1_900_000_000_000

    def __call__(self, connection: Connection) -> int:
        return self.now

    def pass_seconds(self, seconds: float) -> None:
        self.now += int(seconds * 1000)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def outbox(clock: Clock) -> Outbox:
    return Outbox(("command", "url"), clock)


@pytest.fixture
def told(founded: Founded, database: Database, outbox: Outbox) -> Bench:
    """A queue whose site is told by a command and by a URL."""
    return Bench(founded, database, outbox)


def bodies(bench: Bench, target: str = "url") -> list[dict[str, str]]:
    query = select(tables.notice.c.body).where(tables.notice.c.target == target).order_by(tables.notice.c.id)
    return [json.loads(body) for body in bench.look(lambda connection: list(connection.execute(query).scalars()))]


def take(bench: Bench, outbox: Outbox, target: str = "url") -> NoticeRow | None:
    return bench.unit_of_work.run("test", lambda tx: outbox.take(tx, target, LEASE))


def taken(bench: Bench, outbox: Outbox) -> NoticeRow:
    found = take(bench, outbox)
    assert found is not None
    return found


def fail(bench: Bench, outbox: Outbox, row: NoticeRow, wait: float) -> bool:
    return bench.unit_of_work.run("test", lambda tx: outbox.failed(tx, row, wait, DAY))


def cancelled(bench: Bench) -> str:
    signed = bench.queued()
    bench.cancel(signed.id)
    return signed.id


def test_each_way_to_end_leaves_one_notice_for_each_target(told: Bench) -> None:
    """A success, a failure, a cancellation, a worker lost for good and a job that waited too long are told of once."""
    for code in (jobs_pb2.JOB_STATE_SUCCEEDED, jobs_pb2.JOB_STATE_FAILED):
        signed = told.queued()
        told.leased_job()
        if code == jobs_pb2.JOB_STATE_SUCCEEDED:
            told.open(signed.id, 1)
            told.succeed(signed, 1)
        else:
            told.end(signed.id, 1, code, "INVALID_ROWS")
    cancelled(told)
    lost = told.queued(max_attempts=1)
    told.leased_job()
    told.run_out(lost.id)
    late = told.queued()
    expire = update(tables.job).where(tables.job.c.id == late.id).values(expires_at_s=1)
    told.unit_of_work.run("test", lambda tx: tx.connection.execute(expire))
    told.sweep()
    wanted = [
        ("CANCELLED", ""),
        ("EXPIRED", ""),
        ("FAILED", "INVALID_ROWS"),
        ("FAILED", "worker_lost"),
        ("SUCCEEDED", ""),
    ]
    for target in ("command", "url"):
        assert wanted == sorted((body["state"], body["error_code"]) for body in bodies(told, target))


def test_a_notice_says_ids_and_fixed_words(told: Bench) -> None:
    """The notice has exactly the documented fields, and nothing of names, labels or messages."""
    signed = told.queued(suffix="a-secret-name", metadata={"ward": "a-secret-ward"})
    told.cancel(signed.id)
    body = bodies(told)[0]
    assert {
        "format": "cloister-notice/1",
        "id": body["id"],
        "job_id": signed.id,
        "team": "blue",
        "owner": "alice",
        "method": "classification",
        "state": "CANCELLED",
        "error_code": "",
        "finished_at": told.job(signed.id).finished_at.ToJsonString(),
    } == body
    assert "secret" not in json.dumps(body)


def test_a_job_that_is_tried_again_or_rests_is_not_told_of(told: Bench) -> None:
    """A lost lease with attempts left, and a pause, are no end."""
    signed = told.queued(max_attempts=2)
    told.leased_job()
    told.run_out(signed.id)
    told.sweep()
    told.pause(signed.id)
    assert 0 == told.count("notice")


def test_without_targets_nothing_is_written(bench: Bench) -> None:
    """Where no hook and no URL is configured, the table stays empty."""
    cancelled(bench)
    assert 0 == bench.count("notice")


def test_an_end_that_is_not_committed_is_not_told_of(told: Bench, outbox: Outbox, database: Database) -> None:
    """Where the log takes no entry, neither the end nor its notice is there."""

    class BrokenLedger:
        def append(self, connection: Connection, events: object) -> list[int]:
            raise AuditError("full")

    lost = told.queued(max_attempts=1)
    told.leased_job()
    told.run_out(lost.id)
    with pytest.raises(AuditUnavailableError):
        UnitOfWork(database, BrokenLedger(), outbox=outbox).run("test", expiry.sweep)
    assert (0, jobs_pb2.JOB_STATE_VALIDATING) == (told.count("notice"), told.job(lost.id).state)


def test_two_senders_never_hold_one_notice(told: Bench, outbox: Outbox) -> None:
    """Senders that take at the same time share out the notices, each exactly once."""
    for _ in range(6):
        cancelled(told)
    found: list[str] = []

    def send() -> None:
        while (row := take(told, outbox)) is not None:
            found.append(row.id)

    threads = [threading.Thread(target=send) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(body["id"] for body in bodies(told)) == sorted(found)


def test_a_notice_of_a_sender_that_died_is_sent_by_another(told: Bench, outbox: Outbox, clock: Clock) -> None:
    """Once the lease ran out it is taken again, with the same words, and what the first one says no longer counts."""
    cancelled(told)
    first = taken(told, outbox)
    assert take(told, outbox) is None
    clock.pass_seconds(LEASE)
    second = taken(told, outbox)
    assert (first.body, 1, 2) == (second.body, first.attempts, second.attempts)
    told.unit_of_work.run("test", lambda tx: outbox.delivered(tx, first))
    assert not fail(told, outbox, first, 10 * DAY)
    assert 1 == len(bodies(told))
    told.unit_of_work.run("test", lambda tx: outbox.delivered(tx, second))
    assert ([], 1) == (bodies(told), len(bodies(told, "command")))


def test_a_failed_notice_waits_and_is_given_up_in_the_end(told: Bench, outbox: Outbox, clock: Clock) -> None:
    """It is due again after the wait that was asked for, and goes away when the next try would come too late."""
    cancelled(told)
    assert not fail(told, outbox, taken(told, outbox), 10)
    clock.pass_seconds(9)
    assert take(told, outbox) is None
    clock.pass_seconds(1)
    assert not fail(told, outbox, taken(told, outbox), DAY - 10)
    clock.pass_seconds(DAY - 10)
    assert told.look(lambda connection: outbox.is_due(connection, "url"))
    assert fail(told, outbox, taken(told, outbox), 1)
    assert [] == bodies(told)


def test_a_durable_notice_wakes_the_sender(founded: Founded, database: Database) -> None:
    """The sender is woken once for each job that ended, after the commit."""
    seen: list[int] = []
    bench: Bench | None = None

    def wake() -> None:
        assert bench is not None
        seen.append(bench.count("notice"))

    bench = Bench(founded, database, Outbox(("url",), wake=wake))
    cancelled(bench)
    assert [1] == seen
    assert take(bench, Outbox(("url",))) is not None


def test_a_rolled_back_unit_of_work_wakes_nobody(told: Bench, founded: Founded, database: Database) -> None:
    """A change that fails after the end of a job leaves no notice and calls nobody."""
    woken: list[bool] = []
    noisy = UnitOfWork(database, told.unit_of_work._ledger, outbox=Outbox(("url",), wake=lambda: woken.append(True)))
    lost = told.queued(max_attempts=1)
    told.leased_job()
    told.run_out(lost.id)

    def work(tx: Transaction) -> None:
        expiry.sweep(tx)
        raise LookupError

    with pytest.raises(LookupError):
        noisy.run("test", work)
    assert ([], 0) == (woken, told.count("notice"))
