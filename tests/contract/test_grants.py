# SPDX-License-Identifier: Apache-2.0
"""Wraps of datasets and base models in the register, on SQLite and on PostgreSQL."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
from sqlalchemy import update

from cloister.api.v1 import common_pb2
from cloister.evidence.roster import Host, Roster
from cloister.sealed.keys import Identity
from cloister_server.database import tables
from cloister_server.errors import EvidenceRejectedError, InvalidFieldError, NotFoundError
from cloister_server.registry import grants, objects
from queue_bench import Bench
from served_site import POOL
from site_objects import Made, success


def with_host(bench: Bench, identity: Identity, pool: str = POOL) -> Roster:
    """The roster with one more certified host."""
    roster = bench.founded.roster
    keys = roster.hosts[0].signing_keys
    host = Host("host-9", pool, keys, (), str(identity.recipient))
    return replace(roster, hosts=(*roster.hosts, host))


def wrap_for(identity: Identity) -> common_pb2.Wrap:
    return common_pb2.Wrap(recipient_key_id=identity.recipient.key_id, wrap=os.urandom(1168))


def add(bench: Bench, object_id: str, wraps: list[common_pb2.Wrap], roster: Roster, by: str = "alice") -> list[str]:
    now = bench.founded.now
    return bench.run(by, lambda tx, call: grants.add(tx, call, object_id, wraps, roster, now))


def test_a_new_host_of_the_pool_gets_a_wrap(bench: Bench) -> None:
    """Wraps for certified hosts are stored beside the old ones, once, and named in the log."""
    new, made = Identity.generate(), bench.rows["blue"]
    wrap, roster = wrap_for(new), with_host(bench, new)
    before = set(made.wraps)
    assert {*before, new.recipient.key_id} == set(add(bench, made.id, [wrap], roster, by="erin"))
    again = wrap_for(new)
    assert {*before, new.recipient.key_id} == set(add(bench, made.id, [again], roster))
    stored = bench.look(lambda connection: objects.wrap_of(connection, made.id, new.recipient.key_id))
    assert again.wrap == stored
    details = [entry.event.detail for entry in bench.entries("wrap.add", made.id)]
    assert [{"recipients": [new.recipient.key_id]}] * 2 == details


@pytest.mark.parametrize("pool", ["other", POOL])
def test_nobody_else_gets_a_wrap(bench: Bench, pool: str) -> None:
    """A host of another pool, and a key that is not on the roster, are refused together with the rest of the call."""
    new, stranger, made = Identity.generate(), Identity.generate(), bench.rows["blue"]
    wraps = [wrap_for(new)] if pool == "other" else [wrap_for(new), wrap_for(stranger)]
    with pytest.raises(EvidenceRejectedError, match="1 wraps are neither"):
        add(bench, made.id, wraps, with_host(bench, new, pool))
    held = bench.look(lambda connection: objects.recipients(connection, made.id))
    assert set(made.wraps) == set(held)


def test_a_retired_host_gets_no_wrap(bench: Bench) -> None:
    """A retirement ends it, though the key is still listed."""
    new, made = Identity.generate(), bench.rows["blue"]
    roster = with_host(bench, new)
    retired = replace(roster.hosts[-1], retired_at=bench.founded.now - 1)
    with pytest.raises(EvidenceRejectedError):
        add(bench, made.id, [wrap_for(new)], replace(roster, hosts=(*roster.hosts[:-1], retired)))


def test_only_the_team_reads_and_adds_wraps(bench: Bench) -> None:
    """For another team, an unknown object and an unknown recipient the answer is the same."""
    new, made = Identity.generate(), bench.rows["blue"]
    recovery = bench.founded.recovery["blue"].recipient.key_id
    read = bench.run("erin", lambda tx, call: grants.get(tx, call, made.id, recovery))
    assert (made.wraps[recovery], set(made.wraps)) == (read.wrap.wrap, set(read.recipient_key_ids))
    for by, object_id, key_id in (("gina", made.id, recovery), ("alice", "x", recovery), ("alice", made.id, "0" * 32)):
        with pytest.raises(NotFoundError, match="no such object"):
            bench.run(by, lambda tx, call: grants.get(tx, call, object_id, key_id))  # noqa: B023
    with pytest.raises(NotFoundError):
        add(bench, made.id, [wrap_for(new)], with_host(bench, new), by="gina")


def test_a_malformed_wrap_is_refused(bench: Bench) -> None:
    """None at all, one of another size, and one recipient twice are mistakes of the caller."""
    new, made = Identity.generate(), bench.rows["blue"]
    short = common_pb2.Wrap(recipient_key_id=new.recipient.key_id, wrap=b"short")
    for wraps in ([], [short], [wrap_for(new), wrap_for(new)]):
        with pytest.raises(InvalidFieldError):
            add(bench, made.id, wraps, with_host(bench, new))


@pytest.fixture
def result(bench: Bench) -> Made:
    """The result of a job of alice's, whose release to her is under way."""
    signed = bench.queued()
    bench.leased_job()
    made, said = bench.artifact_with_result(signed, 1)
    bench.finish(success(signed, 1, made))
    bench.released(signed, made, said)
    return made


def grant_release(bench: Bench) -> None:
    granted = update(tables.release).values(state="GRANTED")
    bench.unit_of_work.run("test", lambda tx: tx.connection.execute(granted))


def test_a_candidate_gets_no_wrap_from_anybody(bench: Bench, result: Made) -> None:
    """Until it is released a result is for the hosts that it was sealed to; the answer is that of an unknown object."""
    new = Identity.generate()
    with pytest.raises(NotFoundError, match="no such object"):
        add(bench, result.id, [wrap_for(new)], with_host(bench, new))


def test_whom_a_result_was_released_to_wraps_it_to_a_new_host(bench: Bench, result: Made) -> None:
    """A host certified later gets a wrap, from that member alone, and the log names it."""
    grant_release(bench)
    new = Identity.generate()
    roster = with_host(bench, new)
    for other in ("erin", "gina"):
        with pytest.raises(NotFoundError):
            add(bench, result.id, [wrap_for(new)], roster, by=other)
    assert {*result.wraps, new.recipient.key_id} == set(add(bench, result.id, [wrap_for(new)], roster))
    (entry,) = bench.entries("wrap.add", result.id)
    assert ("artifact", {"recipients": [new.recipient.key_id]}) == (entry.event.object.type, entry.event.detail)


def test_what_a_host_wrapped_of_a_result_stays(bench: Bench, result: Made) -> None:
    """A wrap that is there already is not replaced, and nothing is logged for it."""
    grant_release(bench)
    held = min(result.wraps)
    other = common_pb2.Wrap(recipient_key_id=held, wrap=os.urandom(1168))
    assert set(result.wraps) == set(add(bench, result.id, [other], bench.founded.roster))
    assert result.wraps[held] == bench.look(lambda connection: objects.wrap_of(connection, result.id, held))
    assert [] == bench.entries("wrap.add", result.id)


def test_a_result_is_not_wrapped_to_the_recovery_key(bench: Bench, result: Made) -> None:
    """That key would open it for others than those whom its release policy let have it."""
    grant_release(bench)
    recovery = bench.founded.recovery["blue"]
    with pytest.raises(EvidenceRejectedError, match=r"neither for a certified host of pool default; fetch"):
        add(bench, result.id, [wrap_for(recovery)], bench.founded.roster)
