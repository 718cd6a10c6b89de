# SPDX-License-Identifier: Apache-2.0
"""Hints between the control planes of one PostgreSQL: LISTEN and NOTIFY, so that waiting calls wake at once.

A hint carries nothing and may be lost; whoever waits looks by itself at intervals, so it costs a moment and no more.
SQLite serves one process, which needs none.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import cast

import psycopg
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import SQLAlchemyError

from cloister_server.journal import Journal

CHANNEL = "cloister_changed"
_LOOK_SECONDS = 0.5
"""How often the listener looks whether it is to end."""
_RETRY_SECONDS = 1.0


def announce(connection: Connection) -> None:
    """Wake the other control planes once this transaction is committed, if it is."""
    if connection.dialect.name == "postgresql":
        connection.execute(text(f"NOTIFY {CHANNEL}"))


class Listener:
    """A thread that listens, on a connection of its own, from `start` to `stop`."""

    def __init__(self, engine: Engine, wake: Callable[[], None], journal: Journal) -> None:
        """`wake` is called from the thread: at each hint, and whenever hints may have been missed."""
        self._engine = engine
        self._wake = wake
        self._journal = journal
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="hints", daemon=True)

    def start(self) -> None:
        if self._engine.dialect.name == "postgresql":
            self._thread.start()

    def stop(self) -> None:
        """Returns once the thread has ended."""
        self._end.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._end.is_set():
            try:
                self._listen()
            except (SQLAlchemyError, psycopg.Error) as error:
                self._journal.failure("listen_failed", error)
                self._end.wait(_RETRY_SECONDS)

    def _listen(self) -> None:
        with self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text(f"LISTEN {CHANNEL}"))
            driver = cast("psycopg.Connection[object]", connection.connection.driver_connection)
            self._wake()
            try:
                while not self._end.is_set():
                    for _ in driver.notifies(timeout=_LOOK_SECONDS):
                        self._wake()
            finally:
                # It would go on to listen in the pool, for nobody.
                connection.invalidate()
