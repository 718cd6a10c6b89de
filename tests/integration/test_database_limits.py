# SPDX-License-Identifier: Apache-2.0
"""A database that is slow, busy or away: callers are told in time, and nothing has to be restarted."""

import io
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import grpc
import pytest
import sqlalchemy as sa

from cloister.api.v1 import identity_pb2
from cloister.evidence.entry import Event, Subject
from cloister_audit.ledger import Ledger
from cloister_server.calls import SYSTEM
from cloister_server.database.engine import Database, Limits, open_database
from cloister_server.database.unit_of_work import UnitOfWork
from cloister_server.errors import AuditUnavailableError, DatabaseUnavailableError
from cloister_server.journal import Journal
from cloister_server.migrations.schema import upgrade
from served_site import Caller, Founded, Refused, read_refusal, served
from waiting import eventually

TIGHT = Limits(pool_size=2, lock_timeout_seconds=0.2, statement_timeout_seconds=0.5)
EVENT = Event("site.read", SYSTEM, Subject("log", "l"))


@pytest.fixture
def database(postgres_url: Callable[[], str]) -> Iterator[Database]:
    """A database whose every wait is short."""
    url = postgres_url()
    plain = open_database(url)
    upgrade(plain)
    tight = open_database(url, TIGHT)
    yield tight
    tight.dispose()
    plain.dispose()


@pytest.fixture
def unit_of_work(database: Database) -> UnitOfWork:
    return UnitOfWork(database, Ledger(lambda: 1))


def test_a_log_that_somebody_holds_is_not_waited_for_forever(database: Database, unit_of_work: UnitOfWork) -> None:
    """A change behind a held lock of the log is refused as AUDIT_UNAVAILABLE, and is made once the lock is free."""
    with database.writer.begin() as holder:
        holder.execute(sa.text("SELECT * FROM audit_head FOR UPDATE"))
        with pytest.raises(AuditUnavailableError):
            unit_of_work.run("test", lambda tx: tx.record(EVENT))
    unit_of_work.run("test", lambda tx: tx.record(EVENT))


def test_a_statement_without_an_end_is_ended(unit_of_work: UnitOfWork) -> None:
    """A query that runs past the limit is ended by PostgreSQL, and its caller is told DATABASE_UNAVAILABLE."""
    with pytest.raises(DatabaseUnavailableError):
        unit_of_work.read(lambda connection: connection.execute(sa.text("SELECT pg_sleep(600)")))
    assert 1 == unit_of_work.read(lambda connection: connection.execute(sa.text("SELECT 1")).scalar_one())


def test_a_pool_that_is_used_up_is_not_waited_for_forever(database: Database, unit_of_work: UnitOfWork) -> None:
    """With every connection taken a caller is told that the database is unavailable, and served when one is free."""
    with ExitStack() as taken:
        for _ in range(TIGHT.pool_size + 2):
            taken.enter_context(database.writer.connect())
        with pytest.raises(DatabaseUnavailableError):
            unit_of_work.run("test", lambda tx: tx.record(EVENT))
    unit_of_work.run("test", lambda tx: tx.record(EVENT))


def cut(url: str) -> None:
    """End every other connection to the database, as its restart does."""
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        connection.execute(
            sa.text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        )
    engine.dispose()


def answered(caller: Caller) -> Refused | None:
    """Make a call that reads, writes an entry and has a head signed; how it was refused, if it was."""
    try:
        caller.identity.GetSite(identity_pb2.GetSiteRequest(), timeout=30)
    except grpc.RpcError as error:
        return read_refusal(error)
    return None


def test_a_restart_of_the_database_is_survived(tmp_path: Path, postgres_url: Callable[[], str]) -> None:
    """While all its connections are cut again and again, calls are answered or refused as UNAVAILABLE, never INTERNAL;
    afterwards the control plane answers, sweeps and is healthy as before.
    """
    url, said, over = postgres_url(), io.StringIO(), threading.Event()
    refused: list[Refused] = []

    def ask(caller: Caller) -> None:
        while not over.is_set():
            if (refusal := answered(caller)) is not None:
                refused.append(refusal)

    with served(Founded(tmp_path), url, Journal(said), sweep_seconds=0.05) as live:
        callers = [threading.Thread(target=ask, args=(live.caller(name),)) for name in ("alice", "bob", "carol")]
        for thread in callers:
            thread.start()
        for _ in range(20):
            cut(url)
            eventually(lambda: answered(live.caller("dana")) is None, "an answer after the restart")
        over.set()
        for thread in callers:
            thread.join()
        assert {grpc.StatusCode.UNAVAILABLE} >= {refusal.code for refusal in refused}
        healthy = live.site.metrics.registry.get_sample_value
        eventually(lambda: healthy("cloister_serving") == 1.0, "health after the last restart")
    events = {json.loads(line)["event"] for line in said.getvalue().splitlines()}
    assert set() == events & {"internal_error", "stop_not_logged"}
