# SPDX-License-Identifier: Apache-2.0
"""Connections to SQLite (embedded) and PostgreSQL (production).

SQLite: WAL, synchronous=FULL, one writer connection (so one writer at a time, and one connection that
checkpoints the WAL), BEGIN IMMEDIATE for every write; readers have their own connections that cannot write.
PostgreSQL: READ COMMITTED, with limits on waiting.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import (
    URL,
    BigInteger,
    ColumnElement,
    Connection,
    Engine,
    create_engine,
    event,
    literal_column,
    make_url,
)
from sqlalchemy.exc import ArgumentError

from cloister_server.errors import ConfigError

if TYPE_CHECKING:
    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.pool import ConnectionPoolEntry

_OWN_CONNECTIONS = 2
"""Beyond those for calls: one that hints.py keeps, one for watchdog.py."""
_IDLE_SECONDS = 60.0
"""A transaction that stands still for so long is ended by PostgreSQL: it may hold the log's one lock."""
_NOW = {
    "sqlite": "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)",
    "postgresql": "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)",
}


@dataclass(frozen=True)
class Limits:
    """What one process may ask of the database; without a limit one stuck statement would stop the site."""

    pool_size: int = 16
    """Connections for calls."""
    lock_timeout_seconds: float = 10.0
    statement_timeout_seconds: float = 30.0

    @property
    def lock_timeout_ms(self) -> int:
        return int(self.lock_timeout_seconds * 1000)

    def postgres_options(self) -> str:
        """For libpq's `options`."""
        milliseconds = {
            "lock_timeout": self.lock_timeout_seconds,
            "statement_timeout": self.statement_timeout_seconds,
            "idle_in_transaction_session_timeout": _IDLE_SECONDS,
        }
        return " ".join(f"-c {name}={int(seconds * 1000)}" for name, seconds in milliseconds.items())


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True)
class Database:
    """`writer` for units of work, `reader` for everything that leaves no entry."""

    writer: Engine
    reader: Engine

    def dispose(self) -> None:
        self.writer.dispose()
        self.reader.dispose()


def open_database(url: str, limits: Limits = DEFAULT_LIMITS, password: str | None = None) -> Database:
    """Make the engines; nothing connects yet.  Raises ConfigError for another kind of database."""
    try:
        parsed = make_url(url)
        backend = parsed.get_backend_name()
    except ArgumentError as error:
        raise ConfigError("[database] url is not a database URL; see docs/reference/configuration.md") from error
    if backend == "sqlite":
        return _sqlite(url, limits)
    if backend == "postgresql":
        return _postgresql(parsed if password is None else parsed.set(password=password), limits)
    raise ConfigError(f"[database] url: {backend!r} is not supported; use sqlite or postgresql+psycopg")


def now_ms(connection: Connection) -> ColumnElement[int]:
    """The database's clock, milliseconds since 1970: the only clock that leases are measured by."""
    return literal_column(_NOW[connection.dialect.name], BigInteger)


def _postgresql(url: URL, limits: Limits) -> Database:
    # A peer that vanished without a word is noticed within two minutes, not within the system's two hours.
    options = {
        "options": limits.postgres_options(),
        "connect_timeout": 10,
        "keepalives_idle": 60,
        "keepalives_interval": 15,
        "keepalives_count": 4,
    }
    engine = create_engine(
        url,
        pool_size=limits.pool_size,
        max_overflow=_OWN_CONNECTIONS,
        pool_timeout=limits.lock_timeout_seconds,
        # A connection that a restart of PostgreSQL or a firewall cut is found out before work is put on it.
        pool_pre_ping=True,
        connect_args=options,
    )
    return Database(engine, engine)


def _sqlite(url: str, limits: Limits) -> Database:
    # The pool of one connection is the lock that makes writers wait for each other without a busy loop.
    writer = create_engine(url, pool_size=1, max_overflow=0, pool_timeout=limits.lock_timeout_seconds)
    reader = create_engine(url, pool_size=limits.pool_size, max_overflow=_OWN_CONNECTIONS)
    _configure(writer, "BEGIN IMMEDIATE", ("PRAGMA foreign_keys=ON",), limits.lock_timeout_ms)
    _configure(reader, "BEGIN", ("PRAGMA query_only=ON",), limits.lock_timeout_ms)
    return Database(writer, reader)


def _configure(engine: Engine, begin: str, pragmas: tuple[str, ...], busy_timeout_ms: int) -> None:
    @event.listens_for(engine, "connect")
    def _connected(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
        # The driver must not begin transactions by itself: a deferred one that reads first cannot write later.
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL", *pragmas):
            cursor.execute(pragma)
        cursor.execute(f"PRAGMA busy_timeout={busy_timeout_ms}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begun(connection: Connection) -> None:
        connection.exec_driver_sql(begin)
