# SPDX-License-Identifier: Apache-2.0
"""What the doctor says of a site, on SQLite and on PostgreSQL: each thing is broken, found, and has a remedy."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from sqlalchemy import delete, insert, text, update

from backup_bench import BackupBench
from cloister.findings import Diagnosis, as_json, as_text, exit_status
from cloister_audit import fsck
from cloister_audit.tables import audit_entry
from cloister_server.config import Config
from cloister_server.database import tables
from cloister_server.doctor.command import diagnose
from cloister_server.queue import expiry
from queue_bench import Bench

DAY = 24 * 3600
ROOM = 1 << 40


@pytest.fixture
def site(bench: Bench, tmp_path: Path) -> BackupBench:
    """A site with everything in order."""
    made = BackupBench(bench, tmp_path)
    for name in ("tls.key", "log.key"):
        (bench.founded.directory / name).chmod(0o600)
    roster = bench.founded.custody.roster()
    with bench.database.writer.begin() as connection:
        values = {"version": 1, "statement": roster.to_bytes(), "published_at": 0}
        connection.execute(insert(tables.roster).values(values))
    made.heads.latest()
    return made


def look(
    site: BackupBench, *, config: Config | None = None, later: float = 0.0, room: int = ROOM, whole: bool = False
) -> list[Diagnosis]:
    now = site.bench.founded.now + later
    return diagnose(config or site.config, site.bench.database, now, lambda _: room, whole_log=whole)


def only_bad(found: list[Diagnosis]) -> list[tuple[str, str]]:
    """Check and level of everything that is not ok; the clock aside, which the database really has."""
    bad = [(d.check, finding.level) for d in found for finding in d.findings if finding.level != "ok"]
    return [pair for pair in bad if pair[0] != "clock"]


def words(found: list[Diagnosis], check: str) -> str:
    return " ".join(f"{f.message} {f.remedy}" for d in found if d.check == check for f in d.findings)


def test_a_site_in_order_has_nothing_to_do(site: BackupBench) -> None:
    """Every check says ok, and the exit status is 0."""
    found = look(site)
    assert [] == only_bad(found)
    assert 0 == exit_status(found)
    assert ["files", "certificate", "disk"] == [d.check for d in found][:3]
    assert {"clock", "roster", "log", "blobs", "queue", "leases"} <= {d.check for d in found}


def test_a_key_that_others_can_read_is_found(site: BackupBench) -> None:
    """The file is named, with its mode and the command that mends it."""
    key = site.config.log_key_file
    key.chmod(0o644)
    found = look(site)
    assert [("files", "failure")] == only_bad(found)
    assert f"{key} has mode 0644" in words(found, "files")
    assert f"chmod 600 {key}" in words(found, "files")


@pytest.mark.parametrize(("mode", "bad"), [(0o700, []), (0o500, [("files", "failure")])])
def test_a_store_that_the_unit_shows_read_only_goes_by_its_mode(
    site: BackupBench, monkeypatch: pytest.MonkeyPatch, mode: int, bad: list[tuple[str, str]]
) -> None:
    """The nightly doctor's unit mounts everything read-only: then it counts whose folder it is, and its mode."""
    site.config.store_directory.chmod(mode)
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_flag=os.ST_RDONLY))
    assert bad == only_bad(look(site))


def test_what_expires_is_warned_of_and_then_fails(site: BackupBench) -> None:
    """Certificate and roster: fourteen days ahead a warning, afterwards a failure."""
    assert ("roster", "warning") in only_bad(look(site, later=20 * DAY))
    assert ("roster", "failure") in only_bad(look(site, later=31 * DAY))
    assert ("certificate", "warning") in only_bad(look(site, later=80 * DAY))
    assert ("certificate", "failure") in only_bad(look(site, later=400 * DAY))


def test_clocks_apart_are_found(site: BackupBench) -> None:
    """A host whose clock is ten minutes off is told."""
    found = look(site, later=600 + DAY)
    assert ["failure"] == [f.level for d in found if d.check == "clock" for f in d.findings]


@pytest.mark.parametrize(("share", "level"), [(0.5, "failure"), (1.5, "warning")])
def test_little_room_is_found(site: BackupBench, share: float, level: str) -> None:
    """Below the reserve is a failure, near it a warning."""
    room = int(site.config.reserve_bytes * share)
    assert {("disk", level)} == set(only_bad(look(site, room=room)))


def test_a_changed_entry_is_found(site: BackupBench) -> None:
    """An entry whose bytes do not have their hash is a failure that names it."""
    with site.bench.database.writer.begin() as connection:
        connection.execute(update(audit_entry).where(audit_entry.c.seq == 0).values(body=b"{}"))
    found = look(site)
    assert [("log", "failure")] == only_bad(found)
    assert "entry 0" in words(found, "log")


def test_a_removed_entry_is_found(site: BackupBench) -> None:
    """A gap among the newest entries is a failure."""
    with site.bench.database.writer.begin() as connection:
        connection.execute(delete(audit_entry).where(audit_entry.c.seq == 0))
    assert [("log", "failure")] == only_bad(look(site))


def test_a_change_in_an_old_entry_takes_a_look_at_the_whole_log(
    site: BackupBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A quick look passes over what is older than the entries that it hashes; `--whole-log` does not."""
    monkeypatch.setattr(fsck.check_recent, "__defaults__", (1,))
    with site.bench.database.writer.begin() as connection:
        connection.execute(update(audit_entry).where(audit_entry.c.seq == 0).values(body=b"{}"))
    assert [] == only_bad(look(site))
    assert [("log", "failure")] == only_bad(look(site, whole=True))


def test_entries_that_come_meanwhile_are_no_damage(site: BackupBench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control plane goes on while the whole log is recomputed: the doctor looks at one moment of it."""
    check_entry = fsck._check_entry

    def slow(body: bytes, seq: int) -> None:
        check_entry(body, seq)
        if seq == 0:
            site.bench.queued()
            site.heads.latest()

    monkeypatch.setattr(fsck, "_check_entry", slow)
    assert [] == only_bad(look(site, whole=True))


def test_a_lost_blob_is_found(site: BackupBench) -> None:
    """An object without its blob is a failure that names the object."""
    lost = site.push()
    site.store.discard_blob(site.declared(lost))
    found = look(site)
    assert [("blobs", "failure")] == only_bad(found)
    assert lost.id in words(found, "blobs")


def test_an_orphan_blob_is_found(site: BackupBench) -> None:
    """A blob without an object is a warning."""
    place = site.config.store_directory / "blobs" / "aa"
    place.mkdir()
    (place / f"{'a' * 64}.nobody").write_bytes(b"x")
    found = look(site)
    assert [("blobs", "warning")] == only_bad(found)
    assert "nobody" in words(found, "blobs")


def test_a_job_that_no_host_can_take_is_found(site: BackupBench) -> None:
    """A waiting job whose wraps are for hosts that are gone is a failure that names it."""
    job = site.bench.queued()
    assert [] == only_bad(look(site))
    with site.bench.database.writer.begin() as connection:
        connection.execute(
            delete(tables.object_grant).where(tables.object_grant.c.object_id == site.bench.rows["blue"].id)
        )
    found = look(site)
    assert [("queue", "failure")] == only_bad(found)
    assert job.id in words(found, "queue")


def test_a_host_that_keeps_losing_leases_is_found(site: BackupBench) -> None:
    """Three lost leases of one host in a day are a warning that names the host."""
    site.bench.queued()
    for _ in range(3):
        site.bench.leased_job()
        site.bench.run("host-1", lambda tx, call: expiry.take_back(tx, "host-1"))
    found = look(site)
    assert [("leases", "warning")] == only_bad(found)
    assert "host host-1 lost 3 leases" in words(found, "leases")


def test_a_database_behind_is_found(site: BackupBench) -> None:
    """Another schema is a failure with the command to run, and what needs the schema is left out."""
    with site.bench.database.writer.begin() as connection:
        found_revision = connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one()
        connection.execute(text("UPDATE alembic_version SET version_num = '0001'"))
    try:
        found = look(site)
    finally:
        with site.bench.database.writer.begin() as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = :found"), {"found": found_revision})
    assert [("database", "failure")] == only_bad(found)
    assert "cloister-server migrate" in words(found, "database")
    assert "queue" not in {d.check for d in found}


def test_findings_are_text_and_json(site: BackupBench) -> None:
    """Both forms hold every finding; a failure makes the exit status 1."""
    missing = replace(site.config, log_key_file=site.directory / "missing")
    found = look(site, config=missing)
    assert 1 == exit_status(found)
    assert f"{site.directory / 'missing'}: No such file" in as_text(found)
    levels = [item["level"] for item in json.loads(as_json(found))]
    assert 1 == levels.count("failure")
    assert sum(len(d.findings) for d in found) == len(levels)
