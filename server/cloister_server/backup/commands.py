# SPDX-License-Identifier: Apache-2.0
"""`cloister-server backup`, `verify-backup`, `restore` and `recovered`."""

from __future__ import annotations

import argparse
import os
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from cloister.files import give_like
from cloister_audit.ledger import Ledger
from cloister_server.backup.copies import copy_of
from cloister_server.backup.create import Made, Source, make_backup
from cloister_server.backup.folder import BackupFolder
from cloister_server.backup.restore import Restored, Target, restore, trusted_verifier, verify_backup, verify_blobs
from cloister_server.backup.restored_log import LogTools, recovered
from cloister_server.config import Config, load_config
from cloister_server.database.engine import Database, open_database
from cloister_server.database.unit_of_work import UnitOfWork
from cloister_server.errors import BackupError
from cloister_server.heads import Heads
from cloister_server.log_key import read_log_signer
from cloister_server.migrations.schema import require_usable
from cloister_server.store import Store

COMMANDS = ("backup", "verify-backup", "restore", "recovered")

HEAD_OUT = Path("restored.checkpoint")


def add_parsers(commands: argparse._SubParsersAction[argparse.ArgumentParser], config: Path) -> None:
    """Add these commands to the program's; `config` is where the configuration lies by default."""
    backup = _parser(commands, config, "backup", "copy database, blobs, roster and configuration while the server runs")
    backup.add_argument("--to", type=Path, required=True, metavar="DIR", help="folder that keeps the backups")
    backup.add_argument(
        "--keep", type=_at_least_one, metavar="N", help="remove all but the newest N backups afterwards"
    )
    verify = _parser(commands, config, "verify-backup", "read a backup again and compare every digest")
    back = _parser(commands, config, "restore", "put a backup into an empty database and an empty store")
    for command in (verify, back):
        command.add_argument("--from", dest="source", type=Path, required=True, metavar="DIR", help="folder of backups")
        command.add_argument("--backup", metavar="ID", help="which one; the newest by default")
    own = _parser(commands, config, "recovered", "go on with a database that was recovered by PostgreSQL's own means")
    for command in (back, own):
        command.add_argument(
            "--not-before", type=Path, metavar="CHECKPOINT", help="signed head that the log must reach"
        )
        command.add_argument(
            "--head-out", type=Path, default=HEAD_OUT, metavar="FILE", help="where its signed head goes"
        )
    for command in (backup, back):
        command.add_argument("--postgres-bin", type=Path, metavar="DIR", help="folder of pg_dump and pg_restore")
    for command in (back, own):
        command.add_argument("--database", metavar="URL", help="with the role that owns the schema")


def run(parsed: argparse.Namespace) -> None:
    """Run one of COMMANDS.  Raises ConfigError, StartError, BackupError, ServerError."""
    config = load_config(parsed.config)
    if getattr(parsed, "database", None) is not None:
        config = replace(config, database_url=parsed.database)
    if parsed.command == "verify-backup":
        _verify(config, parsed)
        return
    database = open_database(config.database_url, config.database_limits, config.database_password())
    try:
        {"backup": _backup, "restore": _restore, "recovered": _recovered}[parsed.command](config, database, parsed)
    finally:
        database.dispose()


def backup_id(now: int) -> str:
    """The time, so that ids sort by age, and a few random digits."""
    return f"{datetime.fromtimestamp(now, UTC):%Y%m%dt%H%M%Sz}-{os.urandom(3).hex()}"


def _parser(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], config: Path, name: str, text: str
) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(name, help=text)
    command.add_argument("--config", type=Path, default=config, help=f"configuration [{config}]")
    return command


def _at_least_one(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def _backup(config: Config, database: Database, parsed: argparse.Namespace) -> None:
    signer = read_log_signer(config)
    ledger = Ledger(_micros)
    unit_of_work = UnitOfWork(database, ledger)
    unit_of_work.read(require_usable)
    source = Source(
        config=config,
        config_file=parsed.config,
        unit_of_work=unit_of_work,
        ledger=ledger,
        heads=Heads(unit_of_work, ledger, signer, _micros),
        signer=signer,
        store=Store(config.store_directory, config.reserve_bytes),
        database_copy=copy_of(database, parsed.postgres_bin),
    )
    made = make_backup(source, BackupFolder(parsed.to), backup_id, _seconds, parsed.keep)
    _say(_told_backup(made, parsed.to))


def _verify(config: Config, parsed: argparse.Namespace) -> None:
    folder = BackupFolder(parsed.source)
    chosen = parsed.backup or folder.newest()
    manifest, blobs = verify_backup(folder, chosen, trusted_verifier(config))
    verify_blobs(folder, blobs)
    _say([f"ok: backup {chosen}: {manifest.log_size} entries of the log, {len(blobs)} blobs, every digest agrees"])


def _restore(config: Config, database: Database, parsed: argparse.Namespace) -> None:
    folder = BackupFolder(parsed.source)
    _check_head_out(parsed.head_out)
    target = Target(
        config=config,
        log=LogTools(Ledger(_micros), read_log_signer(config), _micros),
        store=Store(config.store_directory, config.reserve_bytes),
        database_copy=copy_of(database, parsed.postgres_bin),
    )
    note = _not_before(parsed)
    done = restore(target, folder, parsed.backup or folder.newest(), trusted_verifier(config), note)
    give_like(config.store_directory.parent, config.store_directory)
    parsed.head_out.write_bytes(done.head)
    _say(told_restore(done, parsed.head_out))


def _told_backup(made: Made, place: Path) -> list[str]:
    copied = f"{made.copied_blobs} were copied now ({made.copied_bytes} bytes)"
    lines = [f"backup {made.backup_id} in {place}: {made.log_size} entries of the log, {made.blobs} blobs; {copied}"]
    if made.config_left_out:
        lines.append("left out: the configuration, because its database URL holds a password; keep a copy elsewhere")
    lines.append("never in a backup: the log's key and the TLS key; keep copies of them apart from it")
    lines += [f"removed: {removed}" for removed in made.removed]
    return lines


_TOLD_RESTORE = """\
restored: backup {id} of {when:%Y-%m-%d %H:%M:%S} UTC, {blobs} blobs; every digest agrees
the log verifies: {size} entries; it goes on after them, and its next entry says that it was restored
lost: everything after that moment: the entries from number {size} on, and what they recorded
jobs that go on: {jobs}; one that a host opened after the backup is refused by that host and fails: submit it again
uploads that were not complete begin anew when they are sent again
people and hosts that saw more than {size} entries refuse this log (ROLLBACK) until the root custodian signs it:
  hand over {head}, then: cloister-admin log restored {head}; cloister-admin roster sign"""


def told_restore(done: Restored, head_file: Path) -> list[str]:
    """What an administrator must know now, in plain words."""
    manifest = done.manifest
    text = _TOLD_RESTORE.format(
        id=manifest.backup_id,
        when=datetime.fromtimestamp(manifest.created_at, UTC),
        blobs=done.blobs,
        size=manifest.log_size,
        jobs=done.open_jobs,
        head=head_file,
    )
    return text.splitlines()


_TOLD_RECOVERED = """\
the log verifies: {size} entries; it goes on after them, and its next entry says that it was restored
blobs that the database names and the store lacks: {missing}
jobs that go on: {jobs}
people and hosts that saw more than {size} entries refuse this log (ROLLBACK) until the root custodian signs it:
  hand over {head}, then: cloister-admin log restored {head}; cloister-admin roster sign"""


def _recovered(config: Config, database: Database, parsed: argparse.Namespace) -> None:
    _check_head_out(parsed.head_out)
    log = LogTools(Ledger(_micros), read_log_signer(config), _micros)
    UnitOfWork(database, log.ledger).read(require_usable)
    store = Store(config.store_directory, config.reserve_bytes)
    done = recovered(database, store, log, trusted_verifier(config), _not_before(parsed))
    parsed.head_out.write_bytes(done.head)
    missing = ", ".join(done.missing) or "none"
    text = _TOLD_RECOVERED.format(size=done.log_size, missing=missing, jobs=done.open_jobs, head=parsed.head_out)
    _say(text.splitlines())


def _check_head_out(path: Path) -> None:
    if path.exists():
        raise BackupError(f"{path} exists already; name another file with --head-out")


def _not_before(parsed: argparse.Namespace) -> bytes | None:
    path: Path | None = parsed.not_before
    try:
        return None if path is None else path.read_bytes()
    except OSError as error:
        raise BackupError(f"{path}: {error.strerror}") from error


def _say(lines: list[str]) -> None:
    sys.stdout.write("".join(f"{line}\n" for line in lines))


def _seconds() -> int:
    return int(time.time())


def _micros() -> int:
    return time.time_ns() // 1000
