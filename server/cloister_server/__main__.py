# SPDX-License-Identifier: Apache-2.0
"""`cloister-server serve --config FILE` and `cloister-server migrate --config FILE`."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from cloister_server.config import Config, load_config
from cloister_server.database.engine import open_database
from cloister_server.errors import ConfigError, ServerError, StartError
from cloister_server.journal import Journal
from cloister_server.migrations.schema import upgrade
from cloister_server.server import build_site, running

EXIT_CONFIG = 2
EXIT_START = 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Return the exit status: 0 stopped in order, 2 bad configuration, 3 the site cannot be served."""
    parsed = _parser().parse_args(arguments)
    try:
        config = load_config(parsed.config)
        # SQLite is the embedded database of one machine, which nobody else looks after; on PostgreSQL the
        # serving role may not change the schema, so `migrate` runs by itself, as another role.
        if parsed.command == "migrate" or config.database_url.startswith("sqlite"):
            _migrate(config)
        if parsed.command == "serve":
            asyncio.run(_serve(config))
    except ConfigError as error:
        return _failed(str(error), EXIT_CONFIG)
    except (StartError, ServerError) as error:
        return _failed(str(error), EXIT_START)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="cloister-server", description="Cloister's control plane.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (("serve", "serve the site until SIGTERM"), ("migrate", "bring the database to this version")):
        command = commands.add_parser(name, help=text)
        command.add_argument("--config", type=Path, required=True, help="configuration file (TOML)")
    return parser


def _migrate(config: Config) -> None:
    database = open_database(config.database_url)
    try:
        upgrade(database)
    finally:
        database.dispose()


async def _serve(config: Config) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    database = open_database(config.database_url)
    try:
        site = build_site(config, database, Journal())
        async with running(site):
            await stop.wait()
    finally:
        database.dispose()


def _failed(message: str, status: int) -> int:
    sys.stderr.write(f"cloister-server: {message}\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
