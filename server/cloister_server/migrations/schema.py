# SPDX-License-Identifier: Apache-2.0
"""Bringing a database to the newest schema, and telling whether it is there."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config as AlembicConfig
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, MetaData

import cloister_audit.tables
from cloister_server.database import grants, tables
from cloister_server.database.engine import Database
from cloister_server.errors import StartError

METADATA: tuple[MetaData, ...] = (tables.metadata, cloister_audit.tables.metadata)
NEWEST = "head"


def alembic_config(connection: Connection | None = None) -> AlembicConfig:
    """Alembic's settings, without a file: there is one history and one place for it."""
    config = AlembicConfig()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def upgrade(database: Database, revision: str = NEWEST) -> None:
    """In one transaction, with what the roles may do: all of it or nothing."""
    with database.writer.begin() as connection:
        command.upgrade(alembic_config(connection), revision)
        grants.apply(connection)


def downgrade(database: Database, revision: str) -> None:
    """In one transaction, like `upgrade`."""
    with database.writer.begin() as connection:
        command.downgrade(alembic_config(connection), revision)


def current(connection: Connection) -> str | None:
    """Revision of the database, None for an empty one."""
    return MigrationContext.configure(connection).get_current_revision()


def newest() -> str | None:
    """Revision that this program needs."""
    return ScriptDirectory.from_config(alembic_config()).get_current_head()


def is_known(revision: str) -> bool:
    """Whether a revision is one of this program's history."""
    return any(script.revision == revision for script in ScriptDirectory.from_config(alembic_config()).walk_revisions())


def require_newest(connection: Connection) -> None:
    """Raises StartError."""
    found, wanted = current(connection), newest()
    if found != wanted:
        raise StartError(f"the database has schema {found or 'none'}, this program needs {wanted}: run `migrate` first")
