# SPDX-License-Identifier: Apache-2.0
"""One transaction for a change and its audit entries.

Crash order: (1) business statements, (2) `Ledger.append` as the last statements, (3) commit.  The commit is the
commit point: before it neither the change nor its entries exist, after it both do.  What must happen outside
the database because of a change (waking a sender, unlinking a blob) happens after it, and recovery repeats it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from cloister.evidence.entry import Event
from cloister_audit.errors import AuditError
from cloister_server.crashpoints import crash_here
from cloister_server.database.engine import Database
from cloister_server.database.rows import JobRow
from cloister_server.errors import (
    AuditUnavailableError,
    DatabaseUnavailableError,
    InvalidFieldError,
    StorageExhaustedError,
)
from cloister_server.store import Declared

T = TypeVar("T")

_TRIES = 4
_RERUN_STATES = ("40001", "40P01")
_FULL = ("SQLITE_FULL", "53100")


class Appender(Protocol):
    """What the ledger must do: add entries to the caller's open transaction, or raise AuditError."""

    def append(self, connection: Connection, events: Sequence[Event]) -> list[int]: ...


class Observer(Protocol):
    """Who counts."""

    def append(self) -> AbstractContextManager[None]:
        """Entered for the time of one append."""

    def committed(self, events: Sequence[Event]) -> None:
        """These entries are durable."""


class Disposer(Protocol):
    """Who removes the bytes of objects that are deleted."""

    def discard(self, blob: Declared) -> None:
        """Remove what there is of a blob, complete or not.  It must not fail for one that is gone."""


class NobodyDisposes:
    """The bytes stay until the next start of a control plane removes them."""

    def discard(self, blob: Declared) -> None: ...


class Unobserved:
    """Nobody counts."""

    def append(self) -> AbstractContextManager[None]:
        return nullcontext()

    def committed(self, events: Sequence[Event]) -> None: ...


class Outbox(Protocol):
    """Who tells the site of jobs that ended."""

    def job_ended(self, tx: Transaction, job: JobRow, state: str, error_code: str) -> None:
        """Called in the transaction in which `job` got the final `state`."""


class NoOutbox:
    """Nobody is told."""

    def job_ended(self, tx: Transaction, job: JobRow, state: str, error_code: str) -> None: ...


class Transaction:
    """An open unit of work."""

    def __init__(self, connection: Connection, outbox: Outbox, disposer: Disposer) -> None:
        self.connection = connection
        self.outbox = outbox
        self.events: list[Event] = []
        self.after_commit: list[Callable[[], None]] = []
        self._disposer = disposer

    def record(self, event: Event) -> None:
        """Write this entry with the change."""
        self.events.append(event)

    def afterwards(self, action: Callable[[], None]) -> None:
        """Run `action` once the change is durable; it must not fail."""
        self.after_commit.append(action)

    def discard(self, blob: Declared) -> None:
        """Remove the bytes of a deleted object once the change is durable."""
        self.afterwards(lambda: self._disposer.discard(blob))


class UnitOfWork:
    """Runs units of work on one database."""

    def __init__(
        self,
        database: Database,
        ledger: Appender,
        observer: Observer | None = None,
        outbox: Outbox | None = None,
        disposer: Disposer | None = None,
    ) -> None:
        self._database = database
        self._ledger = ledger
        self._observer = Unobserved() if observer is None else observer
        self._outbox = NoOutbox() if outbox is None else outbox
        self._disposer = NobodyDisposes() if disposer is None else disposer

    @property
    def database(self) -> Database:
        return self._database

    def run(self, name: str, work: Callable[[Transaction], T]) -> T:
        """Run `work` and commit it together with its entries.

        `work` may run again: two creates of one id can meet, and the second must see the first (IntegrityError
        is therefore tried again, as are deadlocks).  It must do nothing outside the transaction.
        Raises AuditUnavailableError, DatabaseUnavailableError, StorageExhaustedError, InvalidFieldError (a value that
        no column takes), and what `work` raises.
        """
        for remaining in reversed(range(_TRIES)):
            try:
                return self._once(name, work)
            except IntegrityError:
                if remaining == 0:
                    raise
            except DataError as error:
                raise _unstorable() from error
            except DBAPIError as error:
                if remaining == 0 or _sqlstate(error) not in _RERUN_STATES:
                    raise _unavailable(error) from error
            except (SQLAlchemyError, PoolTimeoutError) as error:
                raise DatabaseUnavailableError("the database does not answer; try again") from error
        raise DatabaseUnavailableError("the database is too busy; try again")

    def read(self, work: Callable[[Connection], T]) -> T:
        """Run `work` on a connection that leaves nothing behind.  Raises DatabaseUnavailableError."""
        try:
            with self._database.reader.connect() as connection:
                return work(connection)
        except DataError as error:
            raise _unstorable() from error
        except (OperationalError, InterfaceError, PoolTimeoutError) as error:
            raise DatabaseUnavailableError("the database does not answer; try again") from error

    def _once(self, name: str, work: Callable[[Transaction], T]) -> T:
        with self._database.writer.connect() as connection, connection.begin() as transaction:
            open_work = Transaction(connection, self._outbox, self._disposer)
            result = work(open_work)
            self._append(open_work)
            crash_here(f"{name}.before_commit")
            transaction.commit()
        crash_here(f"{name}.after_commit")
        self._observer.committed(open_work.events)
        for action in open_work.after_commit:
            action()
        return result

    def _append(self, work: Transaction) -> None:
        if not work.events:
            return
        try:
            with self._observer.append():
                self._ledger.append(work.connection, work.events)
        except AuditError as error:
            cause = error.__cause__
            if isinstance(cause, DBAPIError) and _sqlstate(cause) in _RERUN_STATES:
                raise cause from None
            raise AuditUnavailableError("the audit log cannot be written, so nothing was changed; try again") from error


def _unstorable() -> InvalidFieldError:
    """PostgreSQL stores no NUL in a text; what has none in its name is not there either."""
    return InvalidFieldError("request", "a text or number that cannot be stored, such as a text with a NUL")


def _sqlstate(error: DBAPIError) -> str:
    original = error.orig
    return str(getattr(original, "sqlite_errorname", "") or getattr(original, "sqlstate", "") or "")


def _unavailable(error: DBAPIError) -> Exception:
    if _sqlstate(error) in _FULL:
        return StorageExhaustedError("the disk of the database is full; an administrator must free space")
    if isinstance(error, OperationalError | InterfaceError):
        return DatabaseUnavailableError("the database does not answer; try again")
    return error
