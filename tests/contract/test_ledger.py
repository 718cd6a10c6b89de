# SPDX-License-Identifier: Apache-2.0
"""The ledger on SQLite and on PostgreSQL: appending, proving, signing, exporting, and noticing damage."""

from __future__ import annotations

import itertools
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Connection, Engine, create_engine, delete, event, func, insert, select, update

from cloister.evidence.checkpoint import Checkpoint, open_checkpoint
from cloister.evidence.entry import Actor, Entry, Event, Subject
from cloister.evidence.errors import (
    EvidenceError,
    ForkError,
    RollbackError,
    SignatureError,
    TamperedError,
    TruncatedError,
)
from cloister.evidence.merkle import Frontier, leaf_hash, verify_consistency, verify_inclusion
from cloister.evidence.note import NoteSigner
from cloister.evidence_export import verify_export, write_export
from cloister_audit import checkpoints, fsck, proofs, query
from cloister_audit.errors import AuditCorruptError, AuditWriteError, UnknownActionError
from cloister_audit.ledger import Head, Ledger
from cloister_audit.snapshot import snapshot
from cloister_audit.tables import audit_entry, audit_head, audit_node, metadata

SIGNER = NoteSigner("test.site/log", Ed25519PrivateKey.from_private_bytes(bytes(32)))
OTHER = NoteSigner("test.site/log", Ed25519PrivateKey.from_private_bytes(bytes([1] * 32)))


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger_engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    if request.param == "sqlite":
        engine = create_engine(f"sqlite:///{tmp_path}/ledger.db", connect_args={"timeout": 30})

        @event.listens_for(engine, "connect")
        def manual_begin(connection: object, _record: object) -> None:
            connection.isolation_level = None  # type: ignore[attr-defined]

        @event.listens_for(engine, "begin")
        def immediate(connection: object) -> None:
            connection.exec_driver_sql("BEGIN IMMEDIATE")  # type: ignore[attr-defined]
    else:
        engine = create_engine(request.getfixturevalue("postgres_url")())
    metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(insert(audit_head).values(id=1, frontier=Frontier().to_bytes()))
    yield engine
    engine.dispose()


def a_ledger() -> Ledger:
    ticks = itertools.count(1_700_000_000_000_000)
    return Ledger(lambda: next(ticks))


def some_event(n: int, action: str = "job.submit") -> Event:
    return Event(action, Actor("p-1", "person"), Subject("job", f"job-{n}"), detail={"n": n})


def fill(engine: Engine, ledger: Ledger, start: int, end: int) -> None:
    for n in range(start, end):
        with engine.begin() as connection:
            ledger.append(connection, [some_event(n)])


def exported(engine: Engine, ledger: Ledger, path: Path) -> Path:
    checkpoint, note = checkpoints.latest(engine, ledger, SIGNER, 0)
    with engine.connect() as connection:
        write_export(path, note, query.stream(connection, 0, checkpoint.size))
    return path


def test_every_proof_of_a_grown_log_verifies(ledger_engine: Engine) -> None:
    """Inclusion of every entry and consistency from every earlier size verify against the signed head."""
    ledger, heads = a_ledger(), []
    for n in range(13):
        fill(ledger_engine, ledger, n, n + 1)
        heads.append(checkpoints.latest(ledger_engine, ledger, SIGNER, n)[0])
    last = heads[-1]
    with ledger_engine.connect() as connection:
        for seq in range(13):
            body = query.body(connection, seq)
            assert body is not None
            assert seq == Entry.parse(body).seq
            verify_inclusion(leaf_hash(body), seq, 13, proofs.inclusion(connection, seq, 13), last.root)
        for old in heads:
            proof = proofs.consistency(connection, old.size, 13)
            verify_consistency(old.size, old.root, 13, last.root, proof)


def test_change_and_entry_are_one(ledger_engine: Engine) -> None:
    """A transaction that rolls back leaves neither entry nor head."""
    ledger = a_ledger()
    fill(ledger_engine, ledger, 0, 3)
    with pytest.raises(RuntimeError, match="business"), ledger_engine.begin() as connection:
        ledger.append(connection, [some_event(9)])
        raise RuntimeError("business failed")
    with ledger_engine.connect() as connection:
        assert 3 == ledger.head(connection).size
        assert [0, 1, 2] == list(connection.execute(select(audit_entry.c.seq).order_by(audit_entry.c.seq)).scalars())


def test_a_ledger_that_cannot_write_says_so(ledger_engine: Engine) -> None:
    """When an entry cannot be inserted, append raises AuditWriteError."""
    ledger = a_ledger()
    fill(ledger_engine, ledger, 0, 1)
    audit_node.drop(ledger_engine)
    with pytest.raises(AuditWriteError), ledger_engine.begin() as connection:
        ledger.append(connection, [some_event(1)])


def test_unknown_actions_are_refused(ledger_engine: Engine) -> None:
    """An action outside the catalogue is a defect, not an entry."""
    with pytest.raises(UnknownActionError), ledger_engine.begin() as connection:
        a_ledger().append(connection, [some_event(0, "job.invented")])


def test_positions_are_gapless_under_concurrency(ledger_engine: Engine) -> None:
    """Four threads that append at once get every position exactly once."""
    ledger = a_ledger()
    failures: list[BaseException] = []

    def work(start: int) -> None:
        try:
            fill(ledger_engine, ledger, start, start + 25)
        except BaseException as error:  # noqa: BLE001 (reported below)
            failures.append(error)

    threads = [threading.Thread(target=work, args=(n * 25,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [] == failures
    with ledger_engine.connect() as connection:
        assert list(range(100)) == [seq for seq, _ in query.entries(connection, query.Filter(), -1, 1000)]
    checkpoints.latest(ledger_engine, ledger, SIGNER, 0)
    with ledger_engine.connect() as connection:
        assert 100 == fsck.check(connection, SIGNER.verifier)


def test_a_head_that_another_process_signs_meanwhile_is_no_rollback(postgres_url: Callable[[], str]) -> None:
    """While one process signs a head another may add an entry and sign it: both are answered, and the log is whole."""
    # On PostgreSQL alone: SQLite lets the other wait until the first is done.
    engine = create_engine(postgres_url())
    metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(insert(audit_head).values(id=1, frontier=Frontier().to_bytes()))
    ledger = a_ledger()
    fill(engine, ledger, 0, 3)
    other: list[Checkpoint] = []

    class Interrupted(Ledger):
        def head(self, connection: Connection) -> Head:
            head = super().head(connection)
            fill(engine, ledger, 3, 4)
            other.append(checkpoints.latest(engine, ledger, SIGNER, 1)[0])
            return head

    mine, note = checkpoints.latest(engine, Interrupted(lambda: 0), SIGNER, 0)
    assert ([4], 3) == ([head.size for head in other], mine.size)
    assert mine == open_checkpoint(note, SIGNER.verifier, SIGNER.name)
    with engine.connect() as connection:
        assert 4 == fsck.check(connection, SIGNER.verifier)
    engine.dispose()


def test_filters_select(ledger_engine: Engine) -> None:
    """Entries are found by action, actor, object and time, a page at a time."""
    ledger = a_ledger()
    fill(ledger_engine, ledger, 0, 5)
    with ledger_engine.begin() as connection:
        ledger.append(connection, [Event("job.end", Actor("h-1", "host"), Subject("job", "job-3"))])
    with ledger_engine.connect() as connection:

        def seqs(wanted: query.Filter, after: int = -1, limit: int = 10) -> list[int]:
            return [seq for seq, _ in query.entries(connection, wanted, after, limit)]

        assert [3, 5] == seqs(query.Filter(object_id="job-3"))
        assert [5] == seqs(query.Filter(actor="h-1"))
        assert [2, 3] == seqs(query.Filter(action="job.submit"), after=1, limit=2)
        assert [0, 1] == seqs(query.Filter(until_us=1_700_000_000_000_002))


def test_a_rolled_back_database_gets_nothing_signed(ledger_engine: Engine) -> None:
    """After a restore to an older state the signer refuses instead of signing a second history."""
    ledger = a_ledger()
    fill(ledger_engine, ledger, 0, 4)
    with ledger_engine.connect() as connection:
        old_frontier = connection.execute(select(audit_head.c.frontier)).scalar_one()
    fill(ledger_engine, ledger, 4, 6)
    checkpoints.latest(ledger_engine, ledger, SIGNER, 0)
    with ledger_engine.begin() as connection:
        connection.execute(delete(audit_entry).where(audit_entry.c.seq >= 4))
        connection.execute(update(audit_head).values(frontier=old_frontier))
    with pytest.raises(AuditCorruptError, match="rolled back"):
        checkpoints.latest(ledger_engine, ledger, SIGNER, 0)


def test_a_snapshot_sees_one_moment(ledger_engine: Engine) -> None:
    """Entries that are added meanwhile are not seen, by an engine without any settings of ours either."""
    ledger = a_ledger()
    fill(ledger_engine, ledger, 0, 4)
    if ledger_engine.dialect.name == "sqlite":
        with closing(sqlite3.connect(str(ledger_engine.url.database))) as database:
            database.execute("PRAGMA journal_mode=WAL")
    plain = create_engine(ledger_engine.url)
    count = select(func.count()).select_from(audit_entry)
    with snapshot(plain) as connection:
        seen = [connection.execute(count).scalar_one()]
        fill(ledger_engine, ledger, 4, 6)
        seen += [connection.execute(count).scalar_one(), fsck.check(connection, SIGNER.verifier)]
    plain.dispose()
    assert [4, 4, 4] == seen


def test_fsck_finds_a_changed_entry(ledger_engine: Engine) -> None:
    """One entry rewritten in the database is found and named."""
    ledger = a_ledger()
    fill(ledger_engine, ledger, 0, 6)
    forged = Entry(2, 5, some_event(99)).to_bytes()
    with ledger_engine.begin() as connection:
        connection.execute(update(audit_entry).where(audit_entry.c.seq == 2).values(body=forged))
    with ledger_engine.connect() as connection, pytest.raises(AuditCorruptError, match="hash 2 of level 0"):
        fsck.check(connection, SIGNER.verifier)


def test_a_good_export_verifies_with_a_kept_checkpoint(ledger_engine: Engine, tmp_path: Path) -> None:
    """An export verifies offline and extends the checkpoint that the auditor kept."""
    ledger = a_ledger()
    fill(ledger_engine, ledger, 0, 3)
    kept, _ = checkpoints.latest(ledger_engine, ledger, SIGNER, 0)
    fill(ledger_engine, ledger, 3, 8)
    verdict = verify_export(exported(ledger_engine, ledger, tmp_path / "log.tar"), SIGNER.verifier, [kept])
    assert (8, {"job.submit": 8}) == (verdict.size, verdict.actions)


def damaged(tmp_path: Path, lines: list[bytes], note: bytes) -> Path:
    write_export(tmp_path / "bad.tar", note, lines)
    return tmp_path / "bad.tar"


def changed_entry(lines: list[bytes]) -> list[bytes]:
    return [*lines[:2], lines[2].replace(b"job-2", b"job-7"), *lines[3:]]


DAMAGE: list[tuple[str, Callable[[list[bytes]], list[bytes]], type[EvidenceError]]] = [
    ("changed", changed_entry, TamperedError),
    ("cut", lambda lines: lines[:-1], TruncatedError),
    ("swapped", lambda lines: [lines[1], lines[0], *lines[2:]], TamperedError),
    ("removed", lambda lines: [*lines[:2], *lines[3:]], TamperedError),
    ("added", lambda lines: [*lines, Entry(len(lines), 1, some_event(9)).to_bytes()], TamperedError),
    ("garbage", lambda lines: [*lines[:2], b"{}", *lines[3:]], TamperedError),
]


@pytest.mark.parametrize(("name", "damage", "expected"), DAMAGE, ids=[d[0] for d in DAMAGE])
def test_damage_has_its_own_error(
    tmp_path: Path, name: str, damage: Callable[[list[bytes]], list[bytes]], expected: type[EvidenceError]
) -> None:
    """Each kind of damage to an export raises its own error."""
    lines = [Entry(n, n, some_event(n)).to_bytes() for n in range(6)]
    note = signed(lines, SIGNER)
    with pytest.raises(expected):
        verify_export(damaged(tmp_path, damage(lines), note), SIGNER.verifier)


def signed(lines: list[bytes], signer: NoteSigner) -> bytes:
    from cloister.evidence.checkpoint import sign_checkpoint

    return sign_checkpoint(head_of(lines), signer)


def head_of(lines: list[bytes]) -> Checkpoint:
    frontier = Frontier()
    for line in lines:
        frontier = frontier.append(leaf_hash(line))
    return Checkpoint("test.site/log", len(lines), frontier.root())


def test_a_recomputed_history_is_a_fork(tmp_path: Path) -> None:
    """A whole log made anew, with a good signature, still contradicts a kept checkpoint."""
    lines = [Entry(n, n, some_event(n)).to_bytes() for n in range(6)]
    rewritten = [Entry(n, n, some_event(n + 50)).to_bytes() for n in range(8)]
    kept = head_of(lines)
    with pytest.raises(ForkError):
        verify_export(damaged(tmp_path, rewritten, signed(rewritten, SIGNER)), SIGNER.verifier, [kept])


def test_an_older_log_is_a_rollback(tmp_path: Path) -> None:
    """A shorter log with a good signature is a rollback against a kept checkpoint."""
    lines = [Entry(n, n, some_event(n)).to_bytes() for n in range(6)]
    with pytest.raises(RollbackError):
        verify_export(damaged(tmp_path, lines[:4], signed(lines[:4], SIGNER)), SIGNER.verifier, [head_of(lines)])


def test_a_foreign_signature_is_refused(tmp_path: Path) -> None:
    """A checkpoint signed by another key under the same name does not verify."""
    lines = [Entry(n, n, some_event(n)).to_bytes() for n in range(3)]
    with pytest.raises(SignatureError):
        verify_export(damaged(tmp_path, lines, signed(lines, OTHER)), SIGNER.verifier)
    with pytest.raises(SignatureError):
        open_checkpoint(signed(lines, OTHER), SIGNER.verifier, "test.site/log")
