# SPDX-License-Identifier: Apache-2.0
"""How long checkpoints are kept, on SQLite and on PostgreSQL."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
from sqlalchemy import Connection, func, select, update

from cloister.api.v1 import jobs_pb2
from cloister_audit.tables import audit_index
from cloister_server.database import rows, tables
from cloister_server.database.unit_of_work import Transaction
from cloister_server.queue import checkpoints
from cloister_server.queue.states import CANCELLED
from cloister_server.registry import objects
from queue_bench import Bench
from site_objects import Made, Signed


def checkpoint(bench: Bench, signed: Signed, step: int, attempt: int = 1) -> Made:
    """One more that is complete."""
    made = bench.artifact(signed, attempt, "state", step=step)
    bench.unit_of_work.run("test", lambda tx: checkpoints.discard_older(tx, made.id))
    return made


def kept(bench: Bench, *made: Made) -> list[bool]:
    """Of each, whether it is there with somebody who can open it."""

    def work(connection: Connection) -> list[bool]:
        found = []
        for one in made:
            row = objects.find(connection, one.id)
            assert row is not None
            assert (row.state == objects.DELETED) == (objects.recipients(connection, one.id) == [])
            found.append(row.state == objects.READY)
        return found

    return bench.look(work)


def deletions(bench: Bench) -> int:
    """Entries that say so."""
    query = select(func.count()).select_from(audit_index).where(audit_index.c.action == "artifact.delete")
    return int(bench.look(lambda connection: connection.execute(query).scalar_one()))


def test_a_running_job_keeps_its_two_newest(bench: Bench) -> None:
    """With each new one the third newest goes, whatever the attempt, and the log says so."""
    signed = bench.queued()
    bench.leased_job()
    made = [checkpoint(bench, signed, step) for step in (10, 20, 30)]
    assert [False, True, True] == kept(bench, *made)
    bench.run_out(signed.id)
    bench.sweep()
    assert made[-1].id == bench.leased_job().resume_object_id
    made.append(checkpoint(bench, signed, 40, attempt=2))
    assert [False, False, True, True] == kept(bench, *made)
    assert 2 == deletions(bench)


def test_a_job_that_has_ended_keeps_none(bench: Bench) -> None:
    """Not those that are complete, nor one that was on its way; its result stays."""
    signed = bench.queued()
    bench.leased_job()
    made = [checkpoint(bench, signed, step) for step in (10, 20)]
    coming = bench.artifact(signed, 1, "state", step=30)
    bench.unit_of_work.run("test", lambda tx: objects.set_state(tx.connection, coming.id, objects.UPLOADING))
    result = bench.artifact(signed, 1)
    bench.end(signed.id, 1, jobs_pb2.JOB_STATE_FAILED, "OUT_OF_MEMORY")
    assert [False, False, False, True] == kept(bench, *made, coming, result)
    assert 3 == deletions(bench)


def test_a_job_that_waits_again_or_rests_keeps_them(bench: Bench) -> None:
    """Neither a lost lease nor a pause takes a checkpoint away."""
    signed = bench.queued()
    bench.leased_job()
    made = checkpoint(bench, signed, 10)
    bench.run_out(signed.id)
    bench.sweep()
    bench.pause(signed.id)
    assert [True] == kept(bench, made)


def test_a_start_discards_what_earlier_versions_kept(bench: Bench) -> None:
    """Checkpoints of jobs that have ended go, those of others stay; a second start finds nothing."""
    old, live = bench.queued(), bench.queued()
    bench.leased_job()
    leftover = bench.artifact(old, 1, "state")

    def end(tx: Transaction) -> None:
        tx.connection.execute(
            update(tables.job).where(tables.job.c.id == old.id).values(state=CANCELLED, lease_until=0)
        )

    bench.unit_of_work.run("test", end)
    bench.leased_job()
    needed = checkpoint(bench, live, 10)
    for _ in range(2):
        bench.unit_of_work.run("test", checkpoints.discard_of_ended)
    assert [False, True] == kept(bench, leftover, needed)
    assert 1 == deletions(bench)


def test_of_two_that_start_at_once_one_discards(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two control planes that look at the same moment leave one entry."""
    signed = bench.queued()
    bench.leased_job()
    made = bench.artifact(signed, 1, "state")

    def end(tx: Transaction) -> None:
        this = tables.job.c.id == signed.id
        tx.connection.execute(update(tables.job).where(this).values(state=CANCELLED, lease_until=0))

    bench.unit_of_work.run("test", end)
    both = threading.Barrier(2)
    look = rows.several

    def look_together(*arguments: Any) -> Any:  # noqa: ANN401 - as it is given
        found = look(*arguments)
        # Where one has to wait for the other, they cannot meet: then each goes on alone.
        with suppress(threading.BrokenBarrierError):
            both.wait(0.5)
        return found

    monkeypatch.setattr(checkpoints, "several", look_together)
    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(bench.unit_of_work.run, "test", checkpoints.discard_of_ended) for _ in range(2)]:
            done.result()
    assert ([False], 1) == (kept(bench, made), deletions(bench))
