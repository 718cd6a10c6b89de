# SPDX-License-Identifier: Apache-2.0
"""Connections to SQLite (embedded) and PostgreSQL (production).

SQLite: WAL, synchronous=FULL, one writer connection (so one writer at a time, and one connection that
checkpoints the WAL), BEGIN IMMEDIATE for every write; readers have their own connections that cannot write.
PostgreSQL: READ COMMITTED, with limits on waiting.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import BigInteger, ColumnElement, Connection, Engine, create_engine, event, literal_column, make_url
from sqlalchemy.exc import ArgumentError

from cloister_server.errors import ConfigError

if TYPE_CHECKING:
    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.pool import ConnectionPoolEntry

BUSY_TIMEOUT_MS = 10_000
_POSTGRES_LIMITS = "-c lock_timeout=10000 -c statement_timeout=30000 -c idle_in_transaction_session_timeout=60000"
_NOW = {
    "sqlite": "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)",
    "postgresql": "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)",
}


@dataclass(frozen=True)
class Database:
    """`writer` for units of work, `reader` for everything that leaves no entry."""

    writer: Engine
    reader: Engine

    def dispose(self) -> None:
        self.writer.dispose()
        self.reader.dispose()


def open_database(url: str) -> Database:
    """Make the engines; nothing connects yet.  Raises ConfigError for another kind of database."""
    try:
        backend = make_url(url).get_backend_name()
    except ArgumentError as error:
        raise ConfigError("[database] url is not a database URL") from error
    if backend == "sqlite":
        return _sqlite(url)
    if backend == "postgresql":
        options = {"options": _POSTGRES_LIMITS, "connect_timeout": 10}
        engine = create_engine(url, pool_size=8, max_overflow=8, pool_pre_ping=True, connect_args=options)
        return Database(engine, engine)
    raise ConfigError(f"[database] url: {backend!r} is not supported; use sqlite or postgresql+psycopg")


def now_ms(connection: Connection) -> ColumnElement[int]:
    """The database's clock, milliseconds since 1970: the only clock that leases are measured by."""
    return literal_column(_NOW[connection.dialect.name], BigInteger)


def _sqlite(url: str) -> Database:
    # The pool of one connection is the lock that makes writers wait for each other without a busy loop.
    writer = create_engine(url, pool_size=1, max_overflow=0, pool_timeout=BUSY_TIMEOUT_MS / 1000)
    reader = create_engine(url, pool_size=8, max_overflow=8)
    _configure(writer, "BEGIN IMMEDIATE", ("PRAGMA foreign_keys=ON",))
    _configure(reader, "BEGIN", ("PRAGMA query_only=ON",))
    return Database(writer, reader)


def _configure(engine: Engine, begin: str, pragmas: tuple[str, ...]) -> None:
    @event.listens_for(engine, "connect")
    def _connected(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
        # The driver must not begin transactions by itself: a deferred one that reads first cannot write later.
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL", *pragmas):
            cursor.execute(pragma)
        cursor.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begun(connection: Connection) -> None:
        connection.exec_driver_sql(begin)
