# SPDX-License-Identifier: Apache-2.0
"""PostgreSQL: pg_dump reads under a snapshot that this process exported, so dump and contents are one state.

The password goes to the programs in a file of mode 0600 that is removed again: neither their arguments nor their
environment hold it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, MetaData, inspect, text
from sqlalchemy.exc import SQLAlchemyError

from cloister_audit.ledger import Ledger
from cloister_server.backup.contents import Contents, read_contents
from cloister_server.database.engine import Database
from cloister_server.errors import BackupError

_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
_LAST_WORDS = 400


class PostgresCopy:
    """One database of a server; its owner's role is needed for a restore."""

    kind = "postgresql"
    file_name = "database.pgdump"

    def __init__(self, database: Database, programs: Path | None) -> None:
        self._url = database.writer.url
        self._database = database
        self._programs = programs

    def dump(self, target: Path, ledger: Ledger) -> Contents:
        try:
            with self._database.reader.connect() as connection:
                repeatable = connection.execution_options(isolation_level="REPEATABLE READ")
                with repeatable.begin():
                    return self._dump_snapshot(repeatable, target, ledger)
        except SQLAlchemyError as error:
            raise BackupError(f"the database cannot be read: {type(error).__name__}") from error

    def require_empty(self) -> None:
        try:
            tables = inspect(self._database.writer).get_table_names()
        except SQLAlchemyError as error:
            raise BackupError(
                f"the database does not answer ({type(error).__name__}); create it empty first"
            ) from error
        if tables:
            raise BackupError(
                f"the database {self._url.database!r} holds {len(tables)} tables already: restore goes into an empty "
                "place; create another database and name it in [database] url"
            )

    @contextmanager
    def loading(self, source: Path) -> Iterator[Database]:
        # One transaction and the first error ends it: a half-loaded database does not remain.
        self._run("pg_restore", "--single-transaction", "--exit-on-error", "--no-owner", "--no-privileges", str(source))
        try:
            yield self._database
        except BaseException:
            self._drop_tables()
            raise

    def _dump_snapshot(self, connection: Connection, target: Path, ledger: Ledger) -> Contents:
        # The transaction must outlive pg_dump's start and is idle meanwhile, however long a dump takes.
        connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
        snapshot = connection.execute(text("SELECT pg_export_snapshot()")).scalar_one()
        contents = read_contents(connection, ledger)
        self._run("pg_dump", "--format=custom", f"--snapshot={snapshot}", f"--file={target}")
        target.chmod(0o600)
        return contents

    def _drop_tables(self) -> None:
        found = MetaData()
        with self._database.writer.begin() as connection:
            found.reflect(connection)
            found.drop_all(connection)

    def _run(self, program: str, *arguments: str) -> None:
        with tempfile.TemporaryDirectory(prefix="cloister-pg-") as folder:
            environment = {"PATH": _PATH, "LC_ALL": "C", "PGPASSFILE": str(self._password_file(Path(folder)))}
            command = [self._program(program), f"--dbname={self._conninfo()}", "--no-password", *arguments]
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise BackupError(f"{program} ended with status {done.returncode}: {done.stderr.strip()[-_LAST_WORDS:]}")

    def _program(self, name: str) -> str:
        found = shutil.which(name, path=None if self._programs is None else str(self._programs))
        if found is None:
            raise BackupError(
                f"{name} was not found: install PostgreSQL's client programs of the server's version, "
                "or name their folder with --postgres-bin"
            )
        return found

    def _conninfo(self) -> str:
        from psycopg.conninfo import make_conninfo

        named = self._url.translate_connect_args(username="user", database="dbname")
        named.pop("password", None)
        return make_conninfo("", **{**named, **{key: str(value) for key, value in self._url.query.items()}})

    def _password_file(self, folder: Path) -> Path:
        path = folder / "pgpass"
        escaped = str(self._url.password or "").replace("\\", "\\\\").replace(":", "\\:")
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(f"*:*:*:*:{escaped}\n")
        return path
