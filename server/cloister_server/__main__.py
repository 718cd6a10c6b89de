# SPDX-License-Identifier: Apache-2.0
"""The command `cloister-server`."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from cloister.errors import CloisterError
from cloister.evidence.errors import EvidenceError
from cloister.sd_notify import ServiceManager
from cloister_server.backup import commands as backups
from cloister_server.checking import check_site
from cloister_server.config import Config, load_config, read_config
from cloister_server.database.engine import Database, open_database
from cloister_server.doctor import command as doctor
from cloister_server.errors import BackupError, ConfigError, ServerError, StartError
from cloister_server.journal import Journal
from cloister_server.migrations.schema import Standing, upgrade
from cloister_server.server import build_site, running

DIRECTORY = Path("/var/lib/cloister-server")
CONFIG_FILE = Path("/etc/cloister/server.toml")
DATABASE = "postgresql+psycopg://cloister_app@/cloister?host=/run/postgresql"
EXIT_CONFIG = 2
EXIT_START = 3
EXIT_BACKUP = 4


def main(arguments: Sequence[str] | None = None) -> int:
    """Return the exit status: 0 in order, 1 the doctor found a failure, 2 the file is wrong, 3 what it names is, or
    cannot be served, 4 no backup or no restore.
    """
    parsed = parser().parse_args(arguments)
    os.umask(0o077)
    try:
        return _run(parsed)
    except ConfigError as error:
        return _failed(str(error), EXIT_CONFIG)
    except BackupError as error:
        return _failed(str(error), EXIT_BACKUP)
    except (StartError, ServerError) as error:
        return _failed(str(error), EXIT_START)
    except (CloisterError, EvidenceError) as error:
        return _failed(str(error), EXIT_CONFIG)
    except OSError as error:
        return _failed(f"{error.filename or 'system'}: {error.strerror}", EXIT_START)


def _run(parsed: argparse.Namespace) -> int:
    if parsed.command in ("init", "install"):
        return _make(parsed)
    if parsed.command == "check-config":
        return _check(parsed.config)
    if parsed.command == "doctor":
        return doctor.run(parsed)
    if parsed.command in backups.COMMANDS:
        backups.run(parsed)
        return 0
    config = load_config(parsed.config)
    # SQLite is the embedded database of one machine, which nobody else looks after; on PostgreSQL the
    # serving role may not change the schema, so `migrate` runs by itself, as another role.
    if parsed.command == "migrate":
        found = _migrate(config if parsed.database is None else replace(config, database_url=parsed.database))
        sys.stdout.write(_told_schema(found))
    elif config.database_url.startswith("sqlite"):
        _migrate(config)
    if parsed.command == "serve":
        asyncio.run(_serve(config))
    return 0


def parser() -> argparse.ArgumentParser:
    """Every command and option."""
    made = argparse.ArgumentParser(prog="cloister-server", description="Cloister's control plane.")
    commands = made.add_subparsers(dest="command", required=True)
    for name, text in (
        ("serve", "serve the site until SIGTERM"),
        ("migrate", "bring the database to this version"),
        ("check-config", "say everything that is wrong with the configuration and what it names"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("--config", type=Path, default=CONFIG_FILE, help=f"configuration [{CONFIG_FILE}]")
    commands.choices["migrate"].add_argument(
        "--database", help="URL with the role that owns the schema [that of the configuration]"
    )
    init = commands.add_parser("init", help="make the TLS key and the request for the root custodian")
    install = commands.add_parser("install", help="install what the root custodian answered")
    for command in (init, install):
        command.add_argument("--dir", type=Path, default=DIRECTORY, help=f"directory of keys and data [{DIRECTORY}]")
    install.add_argument("welcome", type=Path, metavar="WELCOME.json", help="made by 'cloister-admin server certify'")
    install.add_argument("--log-key", type=Path, required=True, help="made by 'cloister-admin log keygen'")
    install.add_argument("--roster", type=Path, required=True, help="made by 'cloister-admin roster sign'")
    install.add_argument(
        "--config", type=Path, default=CONFIG_FILE, help=f"written where there is none [{CONFIG_FILE}]"
    )
    install.add_argument("--database", default=DATABASE, help=f"URL for a new configuration [{DATABASE}]")
    backups.add_parsers(commands, CONFIG_FILE)
    doctor.add_parser(commands, CONFIG_FILE)
    return made


def _make(parsed: argparse.Namespace) -> int:
    from cloister.enrolment import Welcome
    from cloister_server.init import REQUEST, init_server, install_welcome

    if parsed.command == "init":
        init_server(parsed.dir)
        sys.stdout.write(f"{parsed.dir / REQUEST}\n")
        return 0
    welcome = Welcome.from_json(parsed.welcome.read_bytes())
    keys = {"log_key": parsed.log_key.read_bytes(), "roster": parsed.roster.read_bytes()}
    written = install_welcome(parsed.dir, parsed.config, welcome, database=parsed.database, **keys)
    sys.stdout.write(f"{parsed.config} {'is written' if written else 'was there and stays as it is'}\n")
    return 0


def _check(path: Path) -> int:
    config, source = read_config(path)
    problems = check_site(config, datetime.now(UTC))
    for problem in problems:
        sys.stderr.write(f"{source.show(problem)}\n")
    if problems:
        return EXIT_START
    sys.stdout.write(f"{path}: the configuration is good\n")
    return 0


def _open(config: Config) -> Database:
    return open_database(config.database_url, config.database_limits, config.database_password())


def _told_schema(found: Standing) -> str:
    if found.newer:
        return f"schema {found.found} is newer than this version's {found.newest} and takes it; nothing was changed\n"
    return f"schema {found.found}\n"


def _migrate(config: Config) -> Standing:
    database = _open(config)
    try:
        return upgrade(database)
    except SQLAlchemyError as error:
        # The driver's text is left out: it may repeat the URL with its password.
        raise StartError(
            f"the database cannot be migrated ({type(error).__name__}); check that it answers, and that the URL "
            "names the role that owns its tables"
        ) from error
    finally:
        database.dispose()


async def _serve(config: Config) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    database = _open(config)
    try:
        site = build_site(config, database, Journal())
        async with running(site, ServiceManager(os.environ)):
            await stop.wait()
    finally:
        database.dispose()


def _failed(message: str, status: int) -> int:
    sys.stderr.write("".join(f"cloister-server: {line}\n" for line in message.splitlines()))
    return status


if __name__ == "__main__":
    sys.exit(main())
