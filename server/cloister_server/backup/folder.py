# SPDX-License-Identifier: Apache-2.0
"""The folder that backups are kept in.

    blobs/ab/<sha256>      sealed blobs by digest, shared by all backups: one that is there is not copied again
    backups/<id>/          one complete backup: manifest.json, manifest.note, the database, blobs.list, roster, config
    partial/<id>/          a backup that is being made, or that was interrupted: nobody reads it
    lock                   held while a backup is made

Crash order: a backup is built under partial/ and renamed to backups/ as the last step.  That rename is the commit
point: what was interrupted before it leaves every earlier backup as it was, and the next run clears it away.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cloister.evidence.errors import EvidenceError
from cloister.evidence.note import NoteVerifier
from cloister.files import private_directory, sync_folder
from cloister_server.backup.manifest import MANIFEST, NOTE, BackupManifest, open_manifest
from cloister_server.backup.transfer import PARTIAL
from cloister_server.crashpoints import crash_here
from cloister_server.errors import BackupError
from cloister_server.store import Declared

BLOB_LIST = "blobs.list"
_BLOB_LINE = re.compile(rb"([0-9a-f]{64}) (0|[1-9][0-9]{0,18}) ([a-z0-9][a-z0-9._-]{0,63})")
"""Strict: digest and id become names of files."""
BACKUP_BUILT = "backup.built"
BACKUP_COMMITTED = "backup.committed"


class BackupFolder:
    """Backups and their blobs in one place."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other backups into this folder out.  Raises BackupError where one is being made."""
        for name in ("blobs", "backups", "partial"):
            private_directory(self.root / name)
        descriptor = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError:
            raise BackupError(f"another backup into {self.root} is being made; wait for it to end") from None
        finally:
            os.close(descriptor)

    def begin(self, backup_id: str) -> Path:
        """An empty folder for a new backup; what an interrupted run left goes away.  Call inside `locked`."""
        for left in (self.root / "partial").iterdir():
            shutil.rmtree(left)
        return private_directory(self.root / "partial" / backup_id)

    def commit(self, backup_id: str) -> Path:
        """Make a built backup one of the complete ones."""
        built = self.root / "partial" / backup_id
        sync_folder(built)
        crash_here(BACKUP_BUILT)
        final = self.root / "backups" / backup_id
        built.rename(final)
        sync_folder(final.parent)
        crash_here(BACKUP_COMMITTED)
        return final

    def complete(self) -> list[str]:
        """Ids of the complete backups, oldest first: an id begins with its time."""
        place = self.root / "backups"
        return sorted(path.name for path in place.iterdir()) if place.is_dir() else []

    def newest(self) -> str:
        """Raises BackupError where there is none."""
        found = self.complete()
        if not found:
            raise BackupError(f"{self.root} holds no complete backup; name the folder that `backup --to` was given")
        return found[-1]

    def backup(self, backup_id: str) -> Path:
        """The folder of a complete backup.  Raises BackupError."""
        if backup_id not in self.complete():
            raise BackupError(f"{self.root} holds no backup {backup_id!r}; it has: {', '.join(self.complete()) or '-'}")
        return self.root / "backups" / backup_id

    def manifest(self, backup_id: str, verifier: NoteVerifier) -> BackupManifest:
        """The verified manifest of a complete backup.  Raises BackupError."""
        place = self.backup(backup_id)
        try:
            found = open_manifest((place / MANIFEST).read_bytes(), (place / NOTE).read_bytes(), verifier)
        except OSError as error:
            raise BackupError(f"{place}: {MANIFEST} or {NOTE} cannot be read: {error.strerror}") from error
        except EvidenceError as error:
            raise BackupError(
                f"{place}: not a backup of this site's log, or damaged ({error.reason}): {error}"
            ) from error
        if found.backup_id != backup_id:
            raise BackupError(
                f"{place} holds backup {found.backup_id}: the folder was renamed, or its files were swapped"
            )
        return found

    def blob(self, sha256: str) -> Path:
        return self.root / "blobs" / sha256[:2] / sha256

    def has_blob(self, blob: Declared) -> bool:
        """Whether a blob is there in full size; its digest was compared when it was copied."""
        try:
            return self.blob(blob.sha256).stat().st_size == blob.size
        except FileNotFoundError:
            return False

    def prune(self, keep: int) -> list[str]:
        """Remove all but the newest `keep` backups, then the blobs that none of the rest names; the removed ids.

        Call inside `locked`.  A backup goes before its blobs, so that none is ever left without them.
        """
        removed = self.complete()[: -max(keep, 1)]
        for backup_id in removed:
            # Out of the complete ones by one rename: a removal that is cut short leaves no half of a backup there.
            doomed = self.root / "partial" / backup_id
            (self.root / "backups" / backup_id).rename(doomed)
            shutil.rmtree(doomed)
        if removed:
            self._drop_unnamed_blobs()
        return removed

    def _drop_unnamed_blobs(self) -> None:
        named: set[str] = set()
        for backup_id in self.complete():
            named.update(blob.sha256 for blob in read_blob_list(self.root / "backups" / backup_id / BLOB_LIST))
        for path in (self.root / "blobs").glob("??/*"):
            if path.name.removesuffix(PARTIAL) not in named:
                path.unlink()


def write_blob_list(blobs: list[Declared]) -> bytes:
    """One line for each object: digest, size in bytes, object id."""
    return "".join(f"{blob.sha256} {blob.size} {blob.object_id}\n" for blob in blobs).encode("ascii")


def read_blob_list(path: Path) -> list[Declared]:
    """Raises BackupError, with the number of a line that is not one of `write_blob_list`."""
    try:
        *lines, rest = path.read_bytes().split(b"\n")
    except OSError as error:
        raise BackupError(f"{path} cannot be read: {error.strerror}; use another backup") from error
    found = [_BLOB_LINE.fullmatch(line) for line in lines]
    blobs = [Declared(match[3].decode(), match[1].decode(), int(match[2])) for match in found if match]
    if len(blobs) != len(found) or rest:
        wrong = next((number for number, match in enumerate(found, 1) if match is None), len(found) + 1)
        raise BackupError(f"{path}: line {wrong} is damaged; use another backup")
    return blobs
