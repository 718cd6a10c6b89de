# SPDX-License-Identifier: Apache-2.0
"""Making a backup while the server runs.

Steps, and why the result is consistent: (1) an intent is logged and the log's head is signed, so the copy holds a
signed head that is not older than this run; (2) the database is copied as one state; (3) every blob that this state
calls READY is copied.  A blob is renamed to its digest *before* the database calls it READY, and its bytes never
change, so at (3) everything named at (2) is in the store, with one exception: what was deleted between the two.
Then the copy is made again, and the newer state no longer names it; the blobs that were copied already are kept.
(4) The manifest, signed by the log's key, binds every file by digest; (5) one rename makes the backup complete.

What is in it: the database (with rosters, log and wraps, which no key of this machine opens), the sealed blobs, the
signed roster, and the configuration unless that holds a password.  What is never in it: the log's key, TLS keys, and
any key of the root, of hosts or of people.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import make_url

from cloister.evidence.canonical import JSON, sha256_hex
from cloister.evidence.entry import Event, Subject
from cloister.evidence.note import NoteSigner
from cloister.files import private_directory
from cloister_audit.ledger import Ledger
from cloister_server.backup.contents import Contents
from cloister_server.backup.copies import DatabaseCopy
from cloister_server.backup.folder import BLOB_LIST, BackupFolder, write_blob_list
from cloister_server.backup.manifest import MANIFEST, NOTE, BackupManifest, StoredFile, sign_manifest
from cloister_server.backup.transfer import copy_verified, measure, naming_full_disks, write_synced
from cloister_server.calls import SYSTEM
from cloister_server.config import Config
from cloister_server.database.unit_of_work import UnitOfWork
from cloister_server.errors import BackupError, ServerError
from cloister_server.heads import Heads
from cloister_server.store import Declared, Store

ROSTER = "roster.dsse"
CONFIG = "config.toml"
_TRIES = 3


@dataclass(frozen=True)
class Source:
    """The site that is backed up."""

    config: Config
    config_file: Path
    unit_of_work: UnitOfWork
    ledger: Ledger
    heads: Heads
    signer: NoteSigner
    store: Store
    database_copy: DatabaseCopy


@dataclass(frozen=True)
class Made:
    """What a backup came to."""

    backup_id: str
    log_size: int
    blobs: int
    copied_blobs: int
    copied_bytes: int
    config_left_out: bool
    removed: tuple[str, ...]
    """Older backups that made room."""


def make_backup(
    source: Source,
    folder: BackupFolder,
    new_id: Callable[[int], str],
    clock: Callable[[], int],
    keep: int | None = None,
) -> Made:
    """Make one; `new_id` makes an id out of the time, `keep` is how many complete backups stay.

    Raises BackupError, and leaves earlier backups as they were.  Raises ServerError where the log cannot be written:
    a backup that leaves no entry is not made.
    """
    with naming_full_disks(folder.root), folder.locked():
        now = clock()
        backup_id = new_id(now)
        _record(source, Event("backup.create", SYSTEM, Subject("backup", backup_id), stage="intent"))
        source.heads.latest()
        try:
            made, digest = _Run(source, folder, backup_id, now).make()
        except BaseException:
            failed = Event(
                "backup.create", SYSTEM, Subject("backup", backup_id), outcome="failed", reason="BACKUP_FAILED"
            )
            with suppress(ServerError):  # the log may be what failed; the cause that is raised says more
                _record(source, failed)
            raise
        detail: dict[str, JSON] = {"log_size": made.log_size, "blobs": made.blobs}
        _record(source, Event("backup.create", SYSTEM, Subject("backup", backup_id, digest), detail=detail))
        removed = folder.prune(keep) if keep is not None else []
        return Made(**{**made.__dict__, "removed": tuple(removed)})


def _record(source: Source, event: Event) -> None:
    source.unit_of_work.run("backup.create", lambda tx: tx.record(event))


class _Run:
    """One backup in the making."""

    def __init__(self, source: Source, folder: BackupFolder, backup_id: str, now: int) -> None:
        self._source = source
        self._folder = folder
        self._id = backup_id
        self._now = now
        self._copied = 0
        self._bytes = 0

    def make(self) -> tuple[Made, str]:
        """The result and the digest of its manifest."""
        place = self._folder.begin(self._id)
        contents, database = self._database_with_blobs(place)
        files = [database, write_synced(place / BLOB_LIST, write_blob_list(list(contents.blobs))), self._roster(place)]
        config = self._config(place)
        files += [] if config is None else [config]
        manifest = self._manifest(contents, tuple(files))
        write_synced(place / MANIFEST, manifest.to_bytes())
        write_synced(place / NOTE, sign_manifest(manifest, self._source.signer))
        self._folder.commit(self._id)
        blobs = len(contents.blobs)
        made = Made(self._id, contents.head.size, blobs, self._copied, self._bytes, config is None, ())
        return made, sha256_hex(manifest.to_bytes())

    def _database_with_blobs(self, place: Path) -> tuple[Contents, StoredFile]:
        copy = self._source.database_copy
        target = place / copy.file_name
        missing: list[str] = []
        for _ in range(_TRIES):
            target.unlink(missing_ok=True)
            contents = copy.dump(target, self._source.ledger)
            missing = self._copy_blobs(contents.blobs)
            if not missing:
                return contents, measure(target)
        raise BackupError(
            f"the database names {len(missing)} blobs that the store does not hold, the first of object {missing[0]}: "
            "the store is damaged; run `cloister-server doctor`"
        )

    def _copy_blobs(self, blobs: tuple[Declared, ...]) -> list[str]:
        """Copy what the folder lacks; object ids whose blob is not in the store."""
        missing = []
        for blob in blobs:
            if self._folder.has_blob(blob):
                continue
            target = self._folder.blob(blob.sha256)
            private_directory(target.parent)
            try:
                self._bytes += copy_verified(self._source.store.path(blob), target, blob.sha256)
                self._copied += 1
            except FileNotFoundError:
                missing.append(blob.object_id)
        return missing

    def _roster(self, place: Path) -> StoredFile:
        return write_synced(place / ROSTER, self._source.config.roster_file.read_bytes())

    def _config(self, place: Path) -> StoredFile | None:
        """The configuration file, or None where it holds a secret: a backup holds none."""
        if make_url(self._source.config.database_url).password is not None:
            return None
        return write_synced(place / CONFIG, self._source.config_file.read_bytes())

    def _manifest(self, contents: Contents, files: tuple[StoredFile, ...]) -> BackupManifest:
        source = self._source
        return BackupManifest(
            backup_id=self._id,
            site=source.config.site,
            log_origin=source.config.log_origin,
            created_at=self._now,
            database=source.database_copy.kind,
            schema=contents.schema,
            log_size=contents.head.size,
            log_root=contents.head.root.hex(),
            checkpoint=contents.checkpoint.decode("utf-8"),
            files=files,
        )
