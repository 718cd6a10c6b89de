# SPDX-License-Identifier: Apache-2.0
"""Maintenance and the modes of worker hosts, on SQLite and on PostgreSQL."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cloister.api.v1 import operations_pb2, workers_pb2
from cloister.evidence.entry import Entry
from cloister_audit import query
from cloister_server.errors import InvalidFieldError, MaintenanceError, NotFoundError
from cloister_server.operations import maintenance, workers
from cloister_server.queue import heartbeat
from queue_bench import Bench
from served_site import SITE
from site_objects import owned

UNTIL = 1_900_000_000


def begin(bench: Bench, reason: str = "new disks") -> operations_pb2.BeginMaintenanceResponse:
    request = operations_pb2.BeginMaintenanceRequest(reason=reason)
    request.until.FromSeconds(UNTIL)
    return bench.run("dana", lambda tx, call: maintenance.begin(tx, call, SITE, request))


def end(bench: Bench) -> None:
    bench.run("dana", lambda tx, call: maintenance.end(tx, call, SITE))


def set_mode(bench: Bench, mode: operations_pb2.WorkerMode.ValueType, host: str = "host-1") -> operations_pb2.Worker:
    request = operations_pb2.SetWorkerModeRequest(host=host, mode=mode)
    roster, now = bench.founded.roster, bench.founded.now
    return bench.run("dana", lambda tx, call: workers.set_mode(tx, call, roster, request, now))


def inventory(bench: Bench) -> dict[str, operations_pb2.Worker]:
    found = bench.look(lambda c: workers.inventory(c, bench.founded.roster, bench.founded.now))
    return {worker.host: worker for worker in found}


def logged(bench: Bench, prefix: str) -> list[str]:
    found = bench.look(lambda connection: query.entries(connection, query.Filter(actor="dana"), -1, 1000))
    actions = [Entry.parse(body).event.action for _, body in found]
    return [action for action in actions if action.startswith(prefix)]


def test_maintenance_refuses_what_is_new(bench: Bench) -> None:
    """Jobs, datasets and models are refused with the admin's reason and the expected end; afterwards they are taken."""
    signed, dataset, model = bench.signed(), owned(bench.founded, "alice"), owned(bench.founded, "alice", "model")
    begin(bench)
    for attempt in (
        lambda: bench.submit(signed),
        lambda: bench.create("alice", dataset),
        lambda: bench.create("alice", model),
    ):
        with pytest.raises(MaintenanceError, match="new disks") as refused:
            attempt()
        assert {"until": str(UNTIL)} == refused.value.metadata
    end(bench)
    bench.create("alice", dataset)
    bench.create("alice", model)
    assert signed.id == bench.submit(signed).id


def test_what_was_taken_before_is_answered(bench: Bench) -> None:
    """A client that repeats a call whose answer was lost gets its job, also under maintenance."""
    signed = bench.queued()
    begin(bench)
    assert signed.id == bench.submit(signed).id


def test_under_maintenance_nothing_is_leased_and_what_runs_goes_on(bench: Bench) -> None:
    """A running job keeps its lease and finishes; a waiting one waits for the end."""
    running, waiting = bench.queued(), bench.queued()
    held = bench.leased_job("host-1")
    assert 1 == begin(bench).running
    assert bench.lease("host-2") is None
    assert workers_pb2.DIRECTIVE_CONTINUE == bench.heartbeat(held.id, held.attempt)
    end(bench)
    assert {running.id, waiting.id} - {held.id} == {bench.leased_job("host-2").id}


def test_maintenance_is_changed_and_ended_once(bench: Bench) -> None:
    """Beginning again changes the reason and keeps the beginning; each change has an entry, an end without one none."""
    first = begin(bench).maintenance
    second = begin(bench, "still new disks").maintenance
    assert (first.since, "still new disks", "dana") == (second.since, second.reason, second.by)
    end(bench)
    end(bench)
    assert bench.look(maintenance.find) is None
    assert ["maintenance.begin", "maintenance.begin", "maintenance.end"] == logged(bench, "maintenance")


@pytest.mark.parametrize("reason", ["", " padded", "two\nlines", "x" * 201])
def test_a_reason_is_a_printable_line(bench: Bench, reason: str) -> None:
    """What is shown to everybody fits a line."""
    with pytest.raises(InvalidFieldError):
        begin(bench, reason)


def test_a_cordoned_host_takes_nothing_new(bench: Bench) -> None:
    """What it runs goes on; other hosts take the rest; uncordoned it takes work again."""
    first, second, third = bench.queued(), bench.queued(), bench.queued()
    held = bench.leased_job("host-1")
    worker = set_mode(bench, operations_pb2.WORKER_MODE_CORDONED)
    assert (held.id, held.attempt) == (worker.work_id, worker.attempt)
    assert workers_pb2.DIRECTIVE_CONTINUE == bench.heartbeat(held.id, held.attempt)
    others = {bench.leased_job("host-2").id}
    assert others < {first.id, second.id, third.id} - {held.id}
    bench.run("host-1", lambda tx, call: heartbeat.keep(tx, call, held.id, held.attempt, 60))
    set_mode(bench, operations_pb2.WORKER_MODE_ACTIVE)
    assert bench.lease("host-1") is not None


def test_a_cordoned_host_is_given_nothing(bench: Bench) -> None:
    """A waiting job stays waiting while the only host that asks is cordoned."""
    bench.queued()
    set_mode(bench, operations_pb2.WORKER_MODE_CORDONED)
    assert bench.lease("host-1") is None


def test_a_draining_host_is_told_to_end(bench: Bench) -> None:
    """Its heartbeats say DRAIN; a cancellation still comes first."""
    bench.queued()
    held = bench.leased_job("host-1")
    set_mode(bench, operations_pb2.WORKER_MODE_DRAINING)
    assert workers_pb2.DIRECTIVE_DRAIN == bench.heartbeat(held.id, held.attempt)


def test_modes_are_logged_once(bench: Bench) -> None:
    """Each change has an entry of its own kind, and the same mode again none."""
    for mode in (
        operations_pb2.WORKER_MODE_CORDONED,
        operations_pb2.WORKER_MODE_CORDONED,
        operations_pb2.WORKER_MODE_DRAINING,
        operations_pb2.WORKER_MODE_ACTIVE,
    ):
        set_mode(bench, mode)
    assert ["worker.cordon", "worker.drain", "worker.uncordon"] == logged(bench, "worker")


def test_the_inventory_is_what_hosts_said(bench: Bench) -> None:
    """Every certified host is listed; one that has asked for work with what it said, the other as never seen."""
    request = workers_pb2.LeaseWorkRequest(gpus=2, worker_version="9.9", sandboxed=True)
    bench.run("host-1", lambda tx, call: workers.note(tx, call, request))
    found = inventory(bench)
    assert ["host-1", "host-2"] == sorted(found)
    assert (2, "9.9", True) == (found["host-1"].gpus, found["host-1"].version, found["host-1"].sandboxed)
    assert found["host-1"].HasField("last_seen")
    assert not found["host-2"].HasField("last_seen")
    assert not found["host-2"].HasField("sandboxed")


def test_a_mode_survives_what_a_host_says(bench: Bench) -> None:
    """A host that asks for work does not lift its own cordon."""
    set_mode(bench, operations_pb2.WORKER_MODE_CORDONED)
    bench.run("host-1", lambda tx, call: workers.note(tx, call, workers_pb2.LeaseWorkRequest(gpus=1)))
    assert operations_pb2.WORKER_MODE_CORDONED == inventory(bench)["host-1"].mode


def test_only_certified_hosts_have_a_mode(bench: Bench) -> None:
    """A host that the roster does not have, or has retired, is not found; a mode must be named."""
    with pytest.raises(NotFoundError):
        set_mode(bench, operations_pb2.WORKER_MODE_CORDONED, "host-9")
    with pytest.raises(InvalidFieldError):
        set_mode(bench, operations_pb2.WORKER_MODE_UNSPECIFIED)
    roster = bench.founded.roster
    hosts = tuple(replace(host, retired_at=bench.founded.now) for host in roster.hosts)
    retired = bench.look(lambda c: workers.inventory(c, replace(roster, hosts=hosts), bench.founded.now))
    assert [] == retired
