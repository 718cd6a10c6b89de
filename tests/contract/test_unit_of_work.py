# SPDX-License-Identifier: Apache-2.0
import threading
from collections.abc import Sequence

import pytest
from sqlalchemy import Connection, func, insert, select
from sqlalchemy.exc import IntegrityError

from cloister.evidence.entry import Actor, Event, Subject
from cloister_audit.errors import AuditWriteError
from cloister_audit.ledger import Ledger
from cloister_server.database import tables
from cloister_server.database.engine import Database, now_ms
from cloister_server.database.unit_of_work import Transaction, UnitOfWork
from cloister_server.errors import AuditUnavailableError
from cloister_server.store import Declared

EVENT = Event("site.read", Actor("a", "system"), Subject("log", "l"))


class BrokenLedger:
    """A ledger whose disk is full."""

    def append(self, connection: Connection, events: Sequence[Event]) -> list[int]:
        raise AuditWriteError("no space")


@pytest.fixture
def unit_of_work(database: Database) -> UnitOfWork:
    return UnitOfWork(database, Ledger(lambda: 1))


def add_roster(tx: Transaction, version: int) -> None:
    values = {"version": version, "statement": b"s", "published_at": now_ms(tx.connection)}
    tx.connection.execute(insert(tables.roster).values(**values))


def counts(database: Database) -> tuple[int, int]:
    """Rows of the business table, and entries of the log."""
    with database.reader.connect() as connection:
        rows = connection.execute(select(func.count()).select_from(tables.roster)).scalar_one()
        return int(rows), Ledger(lambda: 1).head(connection).size


def test_a_change_and_its_entry_commit_together(unit_of_work: UnitOfWork, database: Database) -> None:
    """After a unit of work both the row and the entry are there."""

    def work(tx: Transaction) -> None:
        add_roster(tx, 1)
        tx.record(EVENT)

    unit_of_work.run("test", work)
    assert (1, 1) == counts(database)


def test_a_change_that_fails_leaves_no_entry(unit_of_work: UnitOfWork, database: Database) -> None:
    """An exception after the change and the record undoes both."""

    def work(tx: Transaction) -> None:
        add_roster(tx, 1)
        tx.record(EVENT)
        raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        unit_of_work.run("test", work)
    assert (0, 0) == counts(database)


def test_a_log_that_cannot_be_written_undoes_the_change(database: Database) -> None:
    """Where the entry cannot be appended the caller gets AUDIT_UNAVAILABLE and nothing has changed."""

    def work(tx: Transaction) -> None:
        add_roster(tx, 1)
        tx.record(EVENT)

    with pytest.raises(AuditUnavailableError):
        UnitOfWork(database, BrokenLedger()).run("test", work)
    assert (0, 0) == counts(database)


class Bin:
    """Notes what was discarded, and how many rosters were durable then."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.seen: list[tuple[str, int]] = []

    def discard(self, blob: Declared) -> None:
        self.seen.append((blob.object_id, counts(self.database)[0]))


def test_bytes_go_after_the_commit_and_not_after_a_rollback(database: Database) -> None:
    """What was discarded is removed once, when the change is durable, and never after a failure."""
    disposer = Bin(database)
    unit_of_work = UnitOfWork(database, Ledger(lambda: 1), disposer=disposer)

    def good(tx: Transaction) -> None:
        add_roster(tx, 1)
        tx.discard(Declared("good", "", 1))

    def bad(tx: Transaction) -> None:
        tx.discard(Declared("bad", "", 1))
        raise ValueError

    unit_of_work.run("test", good)
    with pytest.raises(ValueError):
        unit_of_work.run("test", bad)
    assert [("good", 1)] == disposer.seen


def test_a_create_that_meets_another_runs_again(unit_of_work: UnitOfWork, database: Database) -> None:
    """Two creates of one id that do not see each other's row end with one row, and the second sees the first."""
    seen: list[bool] = []

    def work(tx: Transaction) -> None:
        query = select(tables.roster.c.version).where(tables.roster.c.version == 1)
        known = tx.connection.execute(query).first() is not None
        seen.append(known)
        if len(seen) == 1:
            # What PostgreSQL says when the other create commits between our look and our insert.
            raise IntegrityError("duplicate key", {}, Exception())
        if not known:
            add_roster(tx, 1)

    unit_of_work.run("test", lambda tx: add_roster(tx, 1))
    unit_of_work.run("test", work)
    assert (1, 0) == counts(database)
    assert [True, True] == seen


def test_a_defect_that_always_violates_a_constraint_is_not_hidden(unit_of_work: UnitOfWork, database: Database) -> None:
    """A violation that comes back on every try reaches the caller, and nothing is left of it."""

    def work(tx: Transaction) -> None:
        add_roster(tx, 1)
        add_roster(tx, 1)

    with pytest.raises(IntegrityError):
        unit_of_work.run("test", work)
    assert (0, 0) == counts(database)


def test_entries_of_parallel_units_are_gapless(unit_of_work: UnitOfWork, database: Database) -> None:
    """Writers on several threads get distinct positions without a gap."""

    def write(first: int) -> None:
        for version in range(first, first + 5):

            def work(tx: Transaction, version: int = version) -> None:
                add_roster(tx, version)
                tx.record(EVENT)

            unit_of_work.run("test", work)

    threads = [threading.Thread(target=write, args=(10 * n + 1,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (20, 20) == counts(database)


@pytest.mark.parametrize("backend", ["sqlite"])
def test_a_reader_cannot_write(database: Database) -> None:
    """On SQLite the reading connections refuse to write, so that there is one writer."""
    with database.reader.connect() as connection, pytest.raises(Exception, match="readonly"):
        connection.execute(insert(tables.roster).values(version=1, statement=b"", published_at=0))


def test_the_databases_clock_is_in_milliseconds(database: Database) -> None:
    """The clock that leases go by gives milliseconds since 1970, and does not stand still between statements."""
    with database.reader.connect() as connection:
        first, second = (int(connection.execute(select(now_ms(connection))).scalar_one()) for _ in range(2))
    assert 1_700_000_000_000 < first <= second < 4_000_000_000_000
