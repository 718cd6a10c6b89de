# SPDX-License-Identifier: Apache-2.0
"""Restoring a backup into an empty place.

Steps: (1) the root's signature on the roster gives the log's key, and that key's signature the manifest; (2) the digest
of every file beside the manifest is compared; (3) database and store must be empty (blobs of this very backup may lie
there: an interrupted restore goes on); (4) blobs are copied, each digest compared on the way; (5) the database is
loaded, its log recomputed from the entries (`cloister_audit.fsck`) and compared with the manifest, and with the
checkpoint that the operator brings; (6) the head at which the log goes on is signed and `site.restore` logged.
The database gets its place last: before that nothing can be served, and a refused backup leaves no database behind.
"""

from __future__ import annotations

from dataclasses import dataclass

from cloister.evidence.canonical import sha256_hex
from cloister.evidence.entry import Subject
from cloister.evidence.errors import EvidenceError
from cloister.evidence.note import NoteVerifier
from cloister.evidence.roster import Roster, verify_roster
from cloister.evidence.signatures import Statement
from cloister.files import private_directory
from cloister_audit.ledger import Head
from cloister_server.backup.copies import DatabaseCopy
from cloister_server.backup.folder import BLOB_LIST, BackupFolder, read_blob_list
from cloister_server.backup.manifest import BackupManifest
from cloister_server.backup.restored_log import LogTools, begin_again, check_log, open_jobs, read_not_before
from cloister_server.backup.transfer import copy_verified, measure, naming_full_disks
from cloister_server.config import Config
from cloister_server.database import grants
from cloister_server.database.engine import Database
from cloister_server.errors import BackupError
from cloister_server.migrations.schema import standing, upgrade
from cloister_server.store import Declared, Store


@dataclass(frozen=True)
class Target:
    """The empty place."""

    config: Config
    log: LogTools
    store: Store
    database_copy: DatabaseCopy


@dataclass(frozen=True)
class Restored:
    """What is there again, and what is not."""

    manifest: BackupManifest
    blobs: int
    head: bytes
    """Signed note over the entries of the backup: where the log goes on."""
    open_jobs: int
    """Jobs that wait or run in the backup, and go on."""


def trusted_verifier(config: Config) -> NoteVerifier:
    """The log's verifier key, by the signature of the pinned root.  Raises BackupError.

    The roster's own expiry does not matter here: a site is also restored after it.
    """
    try:
        statement = Statement.from_bytes(config.roster_file.read_bytes())
        issued = Roster.parse(statement.payload).issued_at
        roster = verify_roster(statement, config.root_public, seen_version=0, now=issued)
        verifier = NoteVerifier.parse(roster.log_vkey)
    except OSError as error:
        raise BackupError(f"{config.roster_file}: {error.strerror}; take the roster from the backup") from error
    except EvidenceError as error:
        raise BackupError(f"{config.roster_file}: not a roster of this site's root: {error}") from error
    if (roster.site, roster.log_origin) != (config.site, config.log_origin):
        raise BackupError(f"{config.roster_file} is of site {roster.site} and log {roster.log_origin}, not of this one")
    return verifier


def verify_backup(
    folder: BackupFolder, backup_id: str, verifier: NoteVerifier
) -> tuple[BackupManifest, list[Declared]]:
    """Verify signature and files beside the manifest; the manifest and its blobs.  Raises BackupError."""
    manifest = folder.manifest(backup_id, verifier)
    place = folder.backup(backup_id)
    for file in manifest.files:
        try:
            found = measure(place / file.name)
        except OSError as error:
            raise BackupError(f"{place / file.name}: {error.strerror}; this backup is incomplete") from error
        if found != file:
            raise BackupError(
                f"{place / file.name} is damaged: {found.size} bytes of digest {found.sha256}, "
                f"the manifest names {file.size} of {file.sha256}"
            )
    return manifest, read_blob_list(place / BLOB_LIST)


def verify_blobs(folder: BackupFolder, blobs: list[Declared]) -> None:
    """Read every blob and compare its digest.  Raises BackupError with the first that differs."""
    for sha256 in sorted({blob.sha256 for blob in blobs}):
        path = folder.blob(sha256)
        try:
            found = measure(path)
        except OSError as error:
            raise BackupError(f"{path}: {error.strerror}; the backup lacks this blob") from error
        if found.sha256 != sha256:
            raise BackupError(f"{path} is damaged: its bytes do not have the digest of its name")


def restore(
    target: Target, folder: BackupFolder, backup_id: str, verifier: NoteVerifier, not_before: bytes | None = None
) -> Restored:
    """Restore one backup; `not_before` is a signed checkpoint that the log must reach.

    Raises BackupError, and leaves no database behind.
    """
    manifest, blobs = verify_backup(folder, backup_id, verifier)
    wanted = read_not_before(not_before, verifier)
    _check_fits(manifest, target, verifier)
    if wanted is not None and wanted.size > manifest.log_size:
        raise BackupError(
            f"this backup ends at entry {manifest.log_size}, your checkpoint covers {wanted.size}: "
            "it is older than what was seen; restore a newer one, or leave --not-before out and lose what is between"
        )
    target.database_copy.require_empty()
    _check_store_empty(target.store, blobs)
    _copy_blobs(target.store, folder, blobs)
    with target.database_copy.loading(folder.backup(backup_id) / target.database_copy.file_name) as database:
        _check_schema(database)
        head = check_log(database, target.log.ledger, verifier, wanted)
        if head != Head(manifest.log_size, bytes.fromhex(manifest.log_root)):
            raise BackupError(f"the log has {head.size} entries, the manifest names {manifest.log_size}, or others")
        # To the newest schema, and what the roles may do: a dump carries no rights.
        _bring_up(database)
        subject = Subject("backup", manifest.backup_id, sha256_hex(manifest.to_bytes()))
        note = begin_again(database, target.log, head, subject)
        return Restored(manifest, len(blobs), note, open_jobs(database))


def _check_fits(manifest: BackupManifest, target: Target, verifier: NoteVerifier) -> None:
    if manifest.site != target.config.site:
        raise BackupError(f"the backup is of site {manifest.site}, the configuration is of {target.config.site}")
    if target.log.signer.vkey != verifier.vkey:
        raise BackupError("[log] key_file is not the key that the roster names: the restored log could not go on")
    if manifest.database != target.database_copy.kind:
        raise BackupError(
            f"the backup is of a {manifest.database} database, [database] url names {target.database_copy.kind}"
        )
    if manifest.file(target.database_copy.file_name) is None:
        raise BackupError(f"the backup holds no {target.database_copy.file_name}")


def _check_schema(database: Database) -> None:
    """A backup of a newer schema says by itself, like every database, whether it takes this program."""
    with database.reader.connect() as connection:
        found = standing(connection)
    if found.newer and found.fault:
        raise BackupError(f"the backup cannot be used by this version: {found.fault}")


def _bring_up(database: Database) -> None:
    if upgrade(database).newer:
        with database.writer.begin() as connection:
            grants.apply(connection)


def _check_store_empty(store: Store, blobs: list[Declared]) -> None:
    foreign = set(store.blobs()) - set(blobs)
    if foreign:
        raise BackupError(
            f"the store holds {len(foreign)} blobs that are not of this backup: restore goes into an empty place; "
            "move them away"
        )


def _copy_blobs(store: Store, folder: BackupFolder, blobs: list[Declared]) -> None:
    for blob in blobs:
        final = store.path(blob)
        if store.is_complete(blob):
            if not store.verify(blob):
                raise BackupError(f"{final} is damaged: remove it and restore again")
            continue
        source = folder.blob(blob.sha256)
        with naming_full_disks(final.parent):
            private_directory(final.parent)
            try:
                size = copy_verified(source, final, blob.sha256)
            except FileNotFoundError:
                raise BackupError(f"{source} is missing: the backup lacks a blob of object {blob.object_id}") from None
        if size != blob.size:
            final.unlink()
            raise BackupError(f"{source} has {size} bytes, object {blob.object_id} declares {blob.size}")
