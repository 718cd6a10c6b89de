# SPDX-License-Identifier: Apache-2.0
"""Reading the log as it was at one moment, while others add to it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine


@contextmanager
def snapshot(engine: Engine) -> Iterator[Connection]:
    """A connection that sees one moment.

    Statement by statement, a head could be read before another process adds an entry and signs, and the newest signed
    head after it: that head would look like one of a log that was rolled back.
    """
    with engine.connect() as connection:
        if connection.dialect.name == "postgresql":
            connection.execution_options(isolation_level="REPEATABLE READ")
        with connection.begin():
            raw = connection.connection.dbapi_connection
            if isinstance(raw, sqlite3.Connection) and not raw.in_transaction:
                # SQLite's transactions are snapshots, but its driver by default begins none for a SELECT.
                connection.exec_driver_sql("BEGIN")
            yield connection
