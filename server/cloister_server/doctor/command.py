# SPDX-License-Identifier: Apache-2.0
"""Runs every check and tells.  A check whose ground is missing (a database that does not answer) is left out."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from sqlalchemy import Connection, make_url
from sqlalchemy.exc import SQLAlchemyError

from cloister.evidence.note import NoteVerifier
from cloister.evidence.roster import Roster
from cloister.evidence.signatures import Statement
from cloister.findings import Check, Diagnosis, Finding, as_json, as_text, exit_status, failure
from cloister_audit.snapshot import snapshot
from cloister_server.backup.restore import trusted_verifier
from cloister_server.config import Config, load_config
from cloister_server.database.engine import Database, open_database
from cloister_server.doctor import database as on_database
from cloister_server.doctor import files, queue
from cloister_server.errors import BackupError
from cloister_server.store import Store, free_bytes


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser], config: Path) -> None:
    """Add `doctor` to the program's commands; `config` is where the configuration lies by default."""
    command = commands.add_parser("doctor", help="find what is wrong with this control plane and say what to do")
    command.add_argument("--config", type=Path, default=config, help=f"configuration [{config}]")
    command.add_argument("--json", action="store_true", help="print JSON")
    command.add_argument("--whole-log", action="store_true", help="recompute the log from its first entry")


def run(parsed: argparse.Namespace) -> int:
    """Print every finding; the exit status is 1 where something failed.  Raises ConfigError."""
    config = load_config(parsed.config)
    database = open_database(config.database_url, config.database_limits, config.database_password())
    try:
        found = diagnose(config, database, time.time(), whole_log=parsed.whole_log)
    finally:
        database.dispose()
    sys.stdout.write(as_json(found) if parsed.json else as_text(found))
    return exit_status(found)


def diagnose(
    config: Config, database: Database, now: float, free: Callable[[Path], int] = free_bytes, *, whole_log: bool = False
) -> list[Diagnosis]:
    """What every check finds; `now` is Unix seconds by this host's clock."""
    found = [Diagnosis(name, tuple(check())) for name, check in _of_files(config, int(now), free)]
    path = make_url(config.database_url).database
    if database.writer.dialect.name == "sqlite" and not Path(path or "").is_file():
        # Connecting would make an empty one, which nobody asked for.
        return [
            *found,
            Diagnosis("database", (failure(f"{path} does not exist", "start the server once, or restore"),)),
        ]
    try:
        with database.reader.connect() as connection:
            schema = Diagnosis("database", tuple(on_database.check_schema(connection)))
            found.append(schema)
            if not schema.failed:
                found += [
                    Diagnosis(n, tuple(c()))
                    for n, c in _of_database(config, database, connection, now, whole_log=whole_log)
                ]
    except SQLAlchemyError as error:
        # The driver's text is left out: it may repeat the URL with its password.
        remedy = "see that it runs, and that [database] url names it, a role and its password"
        found.append(Diagnosis("database", (failure(f"does not answer ({type(error).__name__})", remedy),)))
    return found


def _of_files(config: Config, now: int, free: Callable[[Path], int]) -> Iterator[tuple[str, Check]]:
    places = [("store", config.store_directory)]
    url = make_url(config.database_url)
    if url.get_backend_name() == "sqlite":
        places.append(("database", Path(url.database or "").parent))
    yield "files", lambda: files.check_modes(config)
    yield "certificate", lambda: files.check_certificate(config.tls_certificate, now)
    yield "disk", lambda: files.check_disk(places, config.reserve_bytes, free)


def _of_database(
    config: Config, database: Database, connection: Connection, now: float, *, whole_log: bool
) -> Iterator[tuple[str, Check]]:
    yield "clock", lambda: on_database.check_clock(connection, now)
    yield "roster", lambda: on_database.check_roster(connection, int(now))
    yield "log", lambda: _check_log(config, database, int(now), whole=whole_log)
    if config.store_directory.is_dir():
        store = Store(config.store_directory, config.reserve_bytes)
        yield "blobs", lambda: on_database.check_blobs(connection, store)
    yield "queue", lambda: _check_queue(connection, int(now))
    yield "leases", lambda: queue.check_lost_leases(connection)


def _check_log(config: Config, database: Database, now: int, *, whole: bool) -> Iterable[Finding]:
    try:
        verifier: NoteVerifier = trusted_verifier(config)
    except BackupError as error:
        return [failure(str(error), "put the site's roster in place")]
    with snapshot(database.reader) as connection:
        return list(on_database.check_log(connection, verifier, now, whole=whole))


def _check_queue(connection: Connection, now: int) -> Iterable[Finding]:
    stored = on_database.roster_in_force(connection)
    if stored is None:
        return []
    roster = Roster.parse(Statement.from_bytes(stored).payload)
    return queue.check_stuck(connection, roster, now)
