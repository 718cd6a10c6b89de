# SPDX-License-Identifier: Apache-2.0
"""SQLite: the online backup API copies all pages under one read transaction: writers go on, the copy is one state."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from sqlalchemy import create_engine
from sqlalchemy.exc import DatabaseError
from sqlalchemy.pool import NullPool

from cloister.files import sync_folder
from cloister_audit.ledger import Ledger
from cloister_server.backup.contents import Contents, read_contents
from cloister_server.backup.transfer import naming_full_disks
from cloister_server.database.engine import Database, open_database
from cloister_server.errors import BackupError

_BUSY_SECONDS = 10.0


class SqliteCopy:
    """The database of one file."""

    kind = "sqlite"
    file_name = "database.sqlite"

    def __init__(self, path: Path) -> None:
        self._path = path

    def dump(self, target: Path, ledger: Ledger) -> Contents:
        if not self._path.is_file():
            raise BackupError(f"the database {self._path} does not exist; check [database] url")
        try:
            self._copy_pages(target)
            engine = create_engine(f"sqlite:///{target}", poolclass=NullPool)
            with engine.connect() as connection:
                return read_contents(connection, ledger)
        except (sqlite3.Error, DatabaseError) as error:
            raise BackupError(_said(target, error)) from error

    def require_empty(self) -> None:
        if self._path.exists():
            raise BackupError(
                f"the database {self._path} exists already: restore goes into an empty place; move it away"
            )

    @contextmanager
    def loading(self, source: Path) -> Iterator[Database]:
        loaded = self._path.with_name(self._path.name + ".restoring")
        self._remove(loaded)
        try:
            with naming_full_disks(self._path.parent):
                shutil.copyfile(source, loaded)
            loaded.chmod(0o600)
            database = open_database(f"sqlite:///{loaded}")
            try:
                yield database
            finally:
                # The last connection to close writes the write-ahead log back: the file is whole by itself.
                database.dispose()
            loaded.rename(self._path)
            sync_folder(self._path.parent)
        except BaseException:
            self._remove(loaded)
            raise

    def _copy_pages(self, target: Path) -> None:
        with (
            closing(sqlite3.connect(f"file:{self._path}?mode=ro", uri=True, timeout=_BUSY_SECONDS)) as source,
            closing(sqlite3.connect(target)) as copy,
        ):
            source.backup(copy)
            # The copy is one file without a write-ahead log beside it, so that its digest covers everything.
            copy.execute("PRAGMA journal_mode=DELETE")
        target.chmod(0o600)

    def _remove(self, loaded: Path) -> None:
        for suffix in ("", "-wal", "-shm", "-journal"):
            loaded.with_name(loaded.name + suffix).unlink(missing_ok=True)


def _said(target: Path, error: Exception) -> str:
    cause = error if isinstance(error, sqlite3.Error) else error.__cause__
    name = getattr(cause, "sqlite_errorname", "") or type(error).__name__
    if name == "SQLITE_FULL":
        return f"the disk of {target.parent} is full; free space or name another folder"
    return f"the database cannot be copied to {target}: {name}"
