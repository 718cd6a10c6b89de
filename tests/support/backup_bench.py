# SPDX-License-Identifier: Apache-2.0
"""A site with real blobs that is backed up, and an empty place for it to be restored to."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from cloister_audit.ledger import Ledger
from cloister_server.backup.copies import DatabaseCopy, copy_of
from cloister_server.backup.create import Made as MadeBackup
from cloister_server.backup.create import Source, make_backup
from cloister_server.backup.folder import BackupFolder
from cloister_server.backup.restore import Restored, Target, restore, trusted_verifier
from cloister_server.backup.restored_log import LogTools
from cloister_server.config import Config
from cloister_server.database.engine import Database, open_database
from cloister_server.heads import Heads
from cloister_server.log_key import read_log_signer
from cloister_server.store import Declared, Store
from postgres_server import client_programs
from queue_bench import Bench
from site_objects import Made, owned


class BackupBench:
    """Backups of a bench's database, with a store of its own."""

    def __init__(self, bench: Bench, directory: Path) -> None:
        self.bench = bench
        self.directory = directory
        self.config_file = directory / "config.toml"
        if not self.config_file.exists():
            self.config_file.write_text("# configuration\n")
        self.config = self._config(bench.database, "store")
        self.signer = read_log_signer(self.config)
        self.ledger = Ledger(self.micros)
        self.store = Store(self.config.store_directory, 0)
        self.log = LogTools(self.ledger, self.signer, self.micros)
        self.heads = Heads(bench.unit_of_work, self.ledger, self.signer, self.micros)
        self.folder = BackupFolder(directory / "backups")
        self._count = 0
        for made in (*bench.models.values(), *bench.rows.values()):
            self.fill(made)

    def micros(self) -> int:
        return self.bench.founded.now * 1_000_000

    def fill(self, made: Made) -> None:
        """Put an object's ciphertext into the store."""
        trailer = self.declared(made)
        self.store.append(trailer, 0, made.ciphertext, sync=False)
        self.store.complete(trailer)

    def declared(self, made: Made) -> Declared:
        return Declared(made.id, hashlib.sha256(made.ciphertext).hexdigest(), len(made.ciphertext))

    def push(self, owner: str = "alice") -> Made:
        """One more dataset, complete."""
        made = owned(self.bench.founded, owner)
        self.bench.create(owner, made)
        self.fill(made)
        self.bench.set_ready(made)
        return made

    def source(self, database_copy: DatabaseCopy | None = None) -> Source:
        copy = copy_of(self.bench.database, client_programs())
        unit_of_work = self.bench.unit_of_work
        return Source(
            config=self.config,
            config_file=self.config_file,
            unit_of_work=unit_of_work,
            ledger=self.ledger,
            heads=self.heads,
            signer=self.signer,
            store=self.store,
            database_copy=database_copy or copy,
        )

    def back_up(self, database_copy: DatabaseCopy | None = None, *, keep: int | None = None) -> MadeBackup:
        return make_backup(self.source(database_copy), self.folder, self._next_id, self._now, keep)

    def restore(self, database: Database, *, not_before: bytes | None = None, backup: str = "") -> Restored:
        """Into `database` and an empty store."""
        config = self._config(database, "restored-store")
        target = Target(
            config=config,
            log=self.log,
            store=Store(config.store_directory, 0),
            database_copy=copy_of(database, client_programs()),
        )
        return restore(target, self.folder, backup or self.folder.newest(), trusted_verifier(config), not_before)

    def _config(self, database: Database, store: str) -> Config:
        url = database.writer.url.render_as_string(hide_password=False)
        return self.bench.founded.config(url, store_directory=self.directory / store)

    def _next_id(self, now: int) -> str:
        self._count += 1
        return f"backup-{self._count}"

    def _now(self) -> int:
        return self.bench.founded.now


def empty_database(backend: str, directory: Path, fresh: Callable[[], str]) -> Database:
    """Where a backup goes back: nothing is there yet."""
    return open_database(f"sqlite:///{directory / 'restored.db'}" if backend == "sqlite" else fresh())
