# SPDX-License-Identifier: Apache-2.0
"""Backup and restore, on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import inspect, select, update

from backup_bench import BackupBench, empty_database
from cloister.evidence.checkpoint import open_checkpoint
from cloister.evidence.entry import Entry
from cloister_audit import fsck, query
from cloister_audit.errors import AuditWriteError
from cloister_audit.ledger import Ledger
from cloister_audit.tables import audit_entry
from cloister_server.backup.contents import Contents
from cloister_server.backup.copies import DatabaseCopy
from cloister_server.backup.restore import verify_backup, verify_blobs
from cloister_server.backup.restored_log import recovered
from cloister_server.database import tables
from cloister_server.database.engine import Database
from cloister_server.database.unit_of_work import UnitOfWork
from cloister_server.errors import AuditUnavailableError, BackupError
from cloister_server.notices.outbox import Outbox
from cloister_server.registry import objects
from cloister_server.store import Declared
from queue_bench import Bench
from served_site import Founded


@pytest.fixture
def backups(bench: Bench, tmp_path: Path) -> BackupBench:
    return BackupBench(bench, tmp_path)


@pytest.fixture
def empty(backend: str, tmp_path: Path, postgres_url: Callable[[], str]) -> Iterator[Database]:
    database = empty_database(backend, tmp_path, postgres_url)
    yield database
    database.dispose()


def actions(database: Database) -> list[tuple[str, str]]:
    with database.reader.connect() as connection:
        found = query.entries(connection, query.Filter(), -1, 10_000)
    entries = [Entry.parse(body) for _, body in found]
    return [(entry.event.action, entry.event.stage) for entry in entries]


def job_ids(database: Database) -> list[str]:
    with database.reader.connect() as connection:
        return list(connection.execute(select(tables.job.c.id).order_by(tables.job.c.id)).scalars())


def test_what_was_backed_up_is_there_again(backups: BackupBench, empty: Database) -> None:
    """Rows, blobs and log come back, the log verifies, and its next entry says that it was restored."""
    job = backups.bench.queued()
    made = backups.back_up()
    backups.bench.queued()
    done = backups.restore(empty)
    assert [job.id] == job_ids(empty)
    assert (4, 1) == (done.blobs, done.open_jobs)
    restored = [(path.name, path.read_bytes()) for path in (backups.directory / "restored-store").glob("blobs/??/*")]
    original = [(path.name, path.read_bytes()) for path in (backups.directory / "store").glob("blobs/??/*")]
    assert sorted(original) == sorted(restored)
    with empty.reader.connect() as connection:
        assert made.log_size + 1 == fsck.check(connection, backups.signer.verifier)
    assert [("backup.create", "intent"), ("site.restore", "outcome")] == actions(empty)[-2:]
    assert made.log_size == open_checkpoint(done.head, backups.signer.verifier, backups.signer.name).size


def test_a_notice_that_was_not_sent_is_restored(
    founded: Founded, database: Database, tmp_path: Path, empty: Database
) -> None:
    """What the site was still to be told of when the backup was made is told after a restore, word for word."""
    outbox = Outbox(("url",))
    bench = Bench(founded, database, outbox)
    backups = BackupBench(bench, tmp_path)
    bench.cancel(bench.queued().id)
    backups.back_up()
    before = bench.unit_of_work.run("test", lambda tx: outbox.take(tx, "url", 60.0))
    backups.restore(empty)
    after = UnitOfWork(empty, Ledger(lambda: 1)).run("test", lambda tx: outbox.take(tx, "url", 60.0))
    assert before is not None
    assert after is not None
    assert (before.id, before.body, 1) == (after.id, after.body, after.attempts)


def test_a_backup_leaves_intent_and_outcome(backups: BackupBench) -> None:
    """The log of the running site says that a backup was begun and that it was made."""
    backups.back_up()
    assert [("backup.create", "intent"), ("backup.create", "outcome")] == actions(backups.bench.database)[-2:]


def test_blobs_are_copied_once(backups: BackupBench) -> None:
    """A second backup copies what is new alone, and both can be verified."""
    first = backups.back_up()
    backups.push()
    second = backups.back_up()
    assert (4, 1, 5) == (first.copied_blobs, second.copied_blobs, second.blobs)
    for backup_id in (first.backup_id, second.backup_id):
        _, blobs = verify_backup(backups.folder, backup_id, backups.signer.verifier)
        verify_blobs(backups.folder, blobs)


def test_old_backups_go_with_the_blobs_that_they_alone_named(backups: BackupBench) -> None:
    """`keep` leaves the newest backups whole, and no blob that none of them names."""
    short_lived = backups.push()
    backups.back_up()
    backups.bench.run("alice", lambda tx, call: objects.set_state(tx.connection, short_lived.id, objects.DELETED))
    newest = backups.back_up(keep=1)
    assert (("backup-1",), ["backup-2"]) == (newest.removed, backups.folder.complete())
    assert not backups.folder.blob(backups.declared(short_lived).sha256).exists()
    _, blobs = verify_backup(backups.folder, "backup-2", backups.signer.verifier)
    verify_blobs(backups.folder, blobs)


class Meanwhile:
    """A database copy during which something happens."""

    def __init__(self, inner: DatabaseCopy, happens: Callable[[], None]) -> None:
        self.kind, self.file_name = inner.kind, inner.file_name
        self.require_empty, self.loading = inner.require_empty, inner.loading
        self._inner = inner
        self._happens = happens

    def dump(self, target: Path, ledger: Ledger) -> Contents:
        contents = self._inner.dump(target, ledger)
        self._happens()
        return contents


def test_what_is_deleted_meanwhile_does_not_break_a_backup(backups: BackupBench, empty: Database) -> None:
    """A dataset deleted between the copy of the database and that of its blob is in neither."""
    doomed = backups.push()

    def delete() -> None:
        backups.bench.run("alice", lambda tx, call: objects.set_state(tx.connection, doomed.id, objects.DELETED))
        backups.store.discard_blob(backups.declared(doomed))

    made = backups.back_up(Meanwhile(backups.source().database_copy, delete))
    assert 4 == made.blobs
    assert 4 == backups.restore(empty).blobs


def test_what_is_pushed_meanwhile_waits_for_the_next_backup(backups: BackupBench, empty: Database) -> None:
    """Work that goes on during the copy neither fails nor makes the backup name what it lacks."""

    def push() -> None:
        backups.push()

    made = backups.back_up(Meanwhile(backups.source().database_copy, push))
    assert (4, 4) == (made.blobs, backups.restore(empty).blobs)
    assert 5 == backups.back_up().blobs


def test_a_store_that_lacks_a_blob_is_told(backups: BackupBench) -> None:
    """A blob that the database calls complete and the store lacks ends the backup with the object's id."""
    lost = backups.push()
    backups.store.discard_blob(backups.declared(lost))
    with pytest.raises(BackupError, match=lost.id):
        backups.back_up()
    assert [] == backups.folder.complete()
    assert ("backup.create", "outcome") == actions(backups.bench.database)[-1]


def test_a_full_database_is_not_restored_over(backups: BackupBench) -> None:
    """Restore refuses a database that holds anything."""
    backups.back_up()
    with pytest.raises(BackupError, match="empty place"):
        backups.restore(backups.bench.database)


def test_a_strange_blob_in_the_store_is_not_restored_over(backups: BackupBench, empty: Database) -> None:
    """Restore refuses a store that holds blobs of something else."""
    backups.back_up()
    place = backups.directory / "restored-store" / "blobs" / "aa"
    place.mkdir(parents=True)
    (place / f"{'a' * 64}.somebody").write_bytes(b"x")
    with pytest.raises(BackupError, match="not of this backup"):
        backups.restore(empty)


def test_a_restore_that_was_cut_short_goes_on(backups: BackupBench, empty: Database) -> None:
    """Blobs that an interrupted restore left are taken over; the database was not there yet."""
    backups.back_up()
    blob = next((backups.directory / "backups" / "blobs").glob("??/*"))
    moved = blob.with_name("moved")
    blob.rename(moved)
    with pytest.raises(BackupError, match="missing"):
        backups.restore(empty)
    assert [] == inspect(empty.writer).get_table_names()
    empty.dispose()
    moved.rename(blob)
    remove_empty_file(backups)
    assert 4 == backups.restore(empty).blobs


def remove_empty_file(backups: BackupBench) -> None:
    """Asking SQLite for its tables made an empty file."""
    for suffix in ("", "-wal", "-shm"):
        (backups.directory / f"restored.db{suffix}").unlink(missing_ok=True)


def damage_blob(backups: BackupBench) -> None:
    blob = next((backups.directory / "backups" / "blobs").glob("??/*"))
    data = bytearray(blob.read_bytes())
    data[500] ^= 1
    blob.write_bytes(data)


def damage_database(backups: BackupBench) -> None:
    path = next((backups.directory / "backups" / "backups" / "backup-1").glob("database.*"))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut_database(backups: BackupBench) -> None:
    path = next((backups.directory / "backups" / "backups" / "backup-1").glob("database.*"))
    path.write_bytes(path.read_bytes()[:-1])


def change_manifest(backups: BackupBench) -> None:
    path = backups.directory / "backups" / "backups" / "backup-1" / "manifest.json"
    path.write_bytes(path.read_bytes().replace(b'"log_size":', b'"log_size":1'))


def drop_blob_list(backups: BackupBench) -> None:
    (backups.directory / "backups" / "backups" / "backup-1" / "blobs.list").unlink()


def rename_backup(backups: BackupBench) -> None:
    place = backups.directory / "backups" / "backups"
    (place / "backup-1").rename(place / "backup-2")


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (damage_blob, "damaged"),
        (damage_database, "damaged"),
        (cut_database, "damaged"),
        (change_manifest, "changed"),
        (drop_blob_list, "No such file"),
        (rename_backup, "renamed"),
    ],
)
def test_a_damaged_backup_is_refused(
    backups: BackupBench, empty: Database, harm: Callable[[BackupBench], None], reason: str
) -> None:
    """Whatever of a backup was changed, cut or removed is told, and no database is left."""
    backups.back_up()
    harm(backups)
    with pytest.raises(BackupError, match=reason):
        backups.restore(empty)
    assert [] == inspect(empty.writer).get_table_names()


def test_a_backup_behind_the_brought_checkpoint_is_refused(backups: BackupBench, empty: Database) -> None:
    """`--not-before` holds: a backup that ends before a checkpoint that was seen is not restored."""
    backups.back_up()
    _, seen = backups.heads.latest()
    with pytest.raises(BackupError, match="older than what was seen"):
        backups.restore(empty, not_before=seen)
    backups.back_up()
    assert "backup-2" == backups.restore(empty, not_before=seen).manifest.backup_id


def test_an_unlogged_backup_is_not_made(backups: BackupBench) -> None:
    """Where the intent cannot be written no file of a backup appears."""

    class Refusing:
        def append(self, connection: object, events: object) -> list[int]:
            raise AuditWriteError("full")

    backups.bench.unit_of_work._ledger = Refusing()
    with pytest.raises(AuditUnavailableError):
        backups.back_up()
    assert ([], []) == (backups.folder.complete(), list((backups.folder.root / "partial").iterdir()))


def test_a_forged_log_inside_a_signed_backup_is_refused(backups: BackupBench, empty: Database) -> None:
    """A database whose entries were changed before the backup does not come back: the log is recomputed."""
    with backups.bench.database.writer.begin() as connection:
        connection.execute(update(audit_entry).where(audit_entry.c.seq == 0).values(body=b"{}"))
    backups.back_up()
    with pytest.raises(BackupError, match="does not verify"):
        backups.restore(empty)
    assert [] == inspect(empty.writer).get_table_names()


def test_a_blob_is_declared_by_its_digest(backups: BackupBench) -> None:
    """The folder names blobs by digest, so that two objects of the same bytes take their space once."""
    made = backups.push()
    twin = Declared("another", backups.declared(made).sha256, len(made.ciphertext))
    backups.back_up()
    assert backups.folder.has_blob(twin)


def test_a_recovered_database_goes_on_from_its_own_head(backups: BackupBench) -> None:
    """After a recovery by the database's own means the head is signed, logged, and missing blobs are named."""
    lost = backups.push()
    backups.store.discard_blob(backups.declared(lost))
    database = backups.bench.database
    done = recovered(database, backups.store, backups.log, backups.signer.verifier, None)
    assert (lost.id,) == done.missing
    assert done.log_size == open_checkpoint(done.head, backups.signer.verifier, backups.signer.name).size
    assert ("site.restore", "outcome") == actions(database)[done.log_size]


def test_a_recovered_database_behind_the_brought_checkpoint_is_refused(backups: BackupBench, empty: Database) -> None:
    """A recovery that ends before a head that was seen is told, and nothing is written."""
    backups.back_up()
    backups.restore(empty)
    backups.bench.queued()
    for _ in range(3):
        backups.push()
    _, seen = backups.heads.latest()
    before = actions(empty)
    with pytest.raises(BackupError, match="your checkpoint covers"):
        recovered(empty, backups.store, backups.log, backups.signer.verifier, seen)
    assert before == actions(empty)
