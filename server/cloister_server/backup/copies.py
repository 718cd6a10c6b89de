# SPDX-License-Identifier: Apache-2.0
"""Copying a database out while it is in use, and in where there is none."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from cloister_audit.ledger import Ledger
from cloister_server.backup.contents import Contents
from cloister_server.backup.postgres_copy import PostgresCopy
from cloister_server.backup.sqlite_copy import SqliteCopy
from cloister_server.database.engine import Database


class DatabaseCopy(Protocol):
    """One kind of database."""

    kind: str
    """As in `BackupManifest.database`."""
    file_name: str

    def dump(self, target: Path, ledger: Ledger) -> Contents:
        """Write one consistent state to `target`; the contents are those of exactly that state.

        Raises BackupError.  The server may be running.
        """

    def require_empty(self) -> None:
        """Raises BackupError where the configured database holds anything."""

    def loading(self, source: Path) -> AbstractContextManager[Database]:
        """Load a dump and hand it over to be judged: kept where the block ends well, removed where it raises.

        Raises BackupError.
        """


def copy_of(database: Database, programs: Path | None) -> DatabaseCopy:
    """The way to copy a database; `programs` is the folder of pg_dump and pg_restore, None for PATH."""
    url = database.writer.url
    if url.get_backend_name() == "sqlite":
        return SqliteCopy(Path(url.database or ""))
    return PostgresCopy(database, programs)
