# SPDX-License-Identifier: Apache-2.0
"""The commands `backup`, `verify-backup` and `restore` as processes: killed, on a full disk, and told in words."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import make_url

from backup_bench import BackupBench
from cloister.evidence.signatures import b64
from cloister_server.backup.folder import BACKUP_BUILT, BACKUP_COMMITTED, BackupFolder
from cloister_server.crashpoints import VARIABLE
from cloister_server.database.engine import open_database
from cloister_server.migrations.schema import upgrade
from postgres_server import client_programs
from queue_bench import Bench
from served_site import ORIGIN, SITE, Founded

CONFIG = """\
[site]
name = "{site}"
roster_file = "{directory}/root/roster.dsse"
root_public = "{root}"
[listen]
address = "127.0.0.1:0"
[tls]
certificate = "{directory}/tls.crt"
key = "{directory}/tls.key"
client_ca = "{directory}/ca.crt"
[database]
url = "{url}"
[store]
directory = "store"
reserve_bytes = 0
[log]
origin = "{origin}"
key_file = "{directory}/log.key"
"""


@pytest.fixture(scope="module")
def founded(tmp_path_factory: pytest.TempPathFactory) -> Founded:
    return Founded(tmp_path_factory.mktemp("founded"))


def write_config(founded: Founded, place: Path, url: str) -> Path:
    place.mkdir(exist_ok=True)
    root = b64(founded.custody.root_key().public)
    path = place / "config.toml"
    path.write_text(CONFIG.format(site=SITE, directory=founded.directory, root=root, url=url, origin=ORIGIN))
    return path


@pytest.fixture
def site(founded: Founded, tmp_path: Path) -> Path:
    """The configuration of a site on SQLite with some objects in it."""
    config = write_config(founded, tmp_path / "site", f"sqlite:///{tmp_path}/site/site.db")
    fill(founded, f"sqlite:///{tmp_path}/site/site.db", config.parent)
    return config


def fill(founded: Founded, url: str, directory: Path) -> None:
    database = open_database(url)
    upgrade(database)
    BackupBench(Bench(founded, database), directory)
    database.dispose()


def command(*arguments: str | Path, crash_at: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "cloister_server", *map(str, arguments)],
        env={**os.environ, VARIABLE: crash_at},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize(("point", "complete"), [(BACKUP_BUILT, 1), (BACKUP_COMMITTED, 2)])
def test_a_killed_backup_leaves_the_last_good_one(site: Path, tmp_path: Path, point: str, complete: int) -> None:
    """Kill -9 before the commit point leaves the earlier backup alone, after it both; the next run works."""
    target = tmp_path / "backups"
    assert 0 == command("backup", "--config", site, "--to", target).returncode
    assert -signal.SIGKILL == command("backup", "--config", site, "--to", target, crash_at=point).returncode
    assert complete == len(BackupFolder(target).complete())
    for backup_id in BackupFolder(target).complete():
        said = command("verify-backup", "--config", site, "--from", target, "--backup", backup_id)
        assert 0 == said.returncode, said.stderr
    assert 0 == command("backup", "--config", site, "--to", target).returncode
    assert [] == list((target / "partial").iterdir())


def test_a_full_disk_is_told_and_leaves_the_last_good_backup(site: Path, tmp_path: Path) -> None:
    """On a disk without room the command ends with status 4 and names the folder; nothing complete appears."""
    target = tmp_path / "small"
    target.mkdir()
    script = (
        f"mount -t tmpfs -o size=128k tmpfs {target} && {sys.executable} -P -m cloister_server backup"
        f" --config {site} --to {target}; status=$?; ls {target}/backups | wc -l; exit $status"
    )
    said = subprocess.run(
        ["/usr/bin/unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (4, "0") == (said.returncode, said.stdout.strip()), said.stderr
    assert f"the disk of {target}" in said.stderr
    assert "is full" in said.stderr


def test_restore_says_what_is_lost(founded: Founded, site: Path, tmp_path: Path) -> None:
    """The words after a restore name the moment, the entries, and what the root custodian must sign."""
    target = tmp_path / "backups"
    assert 0 == command("backup", "--config", site, "--to", target).returncode
    there = write_config(founded, tmp_path / "there", f"sqlite:///{tmp_path}/there/site.db")
    head = tmp_path / "head"
    said = command("restore", "--config", there, "--from", target, "--head-out", head)
    assert 0 == said.returncode, said.stderr
    for word in ("restored: backup ", " UTC", "lost: everything after", "ROLLBACK", f"log restored {head}"):
        assert word in said.stdout
    assert head.read_text().startswith(f"{ORIGIN}\n")
    again = command("restore", "--config", there, "--from", target, "--head-out", tmp_path / "other")
    assert (4, True) == (again.returncode, "empty place" in again.stderr)


def test_a_password_stays_out_of_arguments_and_backups(
    founded: Founded, tmp_path: Path, postgres_url: Callable[[], str]
) -> None:
    """On PostgreSQL no file of a backup holds the database's password, and the command says what it left out."""
    url = postgres_url()
    config = write_config(founded, tmp_path / "site", url)
    fill(founded, url, config.parent)
    target = tmp_path / "backups"
    said = command("backup", "--config", config, "--to", target, "--postgres-bin", client_programs())
    assert 0 == said.returncode, said.stderr
    assert "left out: the configuration" in said.stdout
    password = str(make_url(url).password).encode()
    assert [] == [path for path in target.rglob("*") if path.is_file() and password in path.read_bytes()]


def test_a_missing_pg_dump_is_told(founded: Founded, tmp_path: Path, postgres_url: Callable[[], str]) -> None:
    """Without PostgreSQL's programs the command says what to install, and leaves no backup."""
    url = postgres_url()
    config = write_config(founded, tmp_path / "site", url)
    fill(founded, url, config.parent)
    said = command("backup", "--config", config, "--to", tmp_path / "backups", "--postgres-bin", tmp_path)
    assert 4 == said.returncode
    assert "pg_dump was not found" in said.stderr
    assert [] == BackupFolder(tmp_path / "backups").complete()
