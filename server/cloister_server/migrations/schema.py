# SPDX-License-Identifier: Apache-2.0
"""Bringing a database to the newest schema, and telling whether this program may run on what it finds.

A schema says by itself which programs it takes: each revision names in `compatible_from` the oldest revision whose
programs may go on with it, and the upgrade writes that into the table `schema_compatibility`.  So a program that finds
a revision from after its own time decides by the database alone.  It never changes such a schema.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from alembic import command
from alembic.config import Config as AlembicConfig
from alembic.script import ScriptDirectory
from sqlalchemy import Column, Connection, MetaData, String, Table, delete, insert, inspect, select

import cloister_audit.tables
from cloister_server.database import grants, tables
from cloister_server.database.engine import Database
from cloister_server.errors import StartError

METADATA: tuple[MetaData, ...] = (tables.metadata, cloister_audit.tables.metadata)
NEWEST = "head"
HERE = Path(__file__).parent
_COMPATIBILITY = tables.schema_compatibility
_REVISION = Table("alembic_version", MetaData(), Column("version_num", String(32)))


@dataclass(frozen=True)
class Standing:
    """How a database's schema and this program fit."""

    found: str | None
    """Revision of the database, None for an empty one."""
    newest: str
    """Newest revision that this program knows."""
    newer: bool
    """Whether `found` is from after this program's time."""
    fault: str
    """What keeps this program from running on it and what to do, or nothing."""


def alembic_config(connection: Connection | None = None, scripts: Path = HERE) -> AlembicConfig:
    """Alembic's settings, without a file: there is one history and one place for it."""
    config = AlembicConfig()
    config.set_main_option("script_location", str(scripts))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def upgrade(database: Database, revision: str = NEWEST, scripts: Path = HERE) -> Standing:
    """In one transaction, with what the roles may do: all of it or nothing.

    A schema from after this program's time stays as it is.  Raises StartError where it takes no program like this one.
    """
    with database.writer.begin() as connection:
        before = standing(connection, scripts)
        if before.newer:
            return _usable(before)
        command.upgrade(alembic_config(connection, scripts), revision)
        _declare(connection, scripts)
        grants.apply(connection)
        return standing(connection, scripts)


def downgrade(database: Database, revision: str, scripts: Path = HERE) -> None:
    """In one transaction, like `upgrade`."""
    with database.writer.begin() as connection:
        command.downgrade(alembic_config(connection, scripts), revision)
        _declare(connection, scripts)


def current(connection: Connection) -> str | None:
    """Revision of the database, None for an empty one."""
    # Not by Alembic's context: it makes a table object each time, and the engine keeps a compiled statement for each.
    if not inspect(connection).has_table(_REVISION.name):
        return None
    return connection.execute(select(_REVISION.c.version_num)).scalar_one_or_none()


@cache
def history(scripts: Path = HERE) -> tuple[str, ...]:
    """Every revision that this program knows, oldest first."""
    walked = ScriptDirectory.from_config(alembic_config(scripts=scripts)).walk_revisions()
    return tuple(reversed([script.revision for script in walked]))


def newest() -> str:
    """Revision that this program needs."""
    return history()[-1]


def standing(connection: Connection, scripts: Path = HERE) -> Standing:
    """Compare the database's schema with what this program knows; nothing is changed."""
    found, known = current(connection), history(scripts)
    if found == known[-1]:
        return Standing(found, known[-1], newer=False, fault="")
    if found is None or found in known:
        fault = f"the database has schema {found or 'none'}, this program needs {known[-1]}: run `migrate` first"
        return Standing(found, known[-1], newer=False, fault=fault)
    oldest = _compatible_from(connection)
    if oldest in known:
        return Standing(found, known[-1], newer=True, fault="")
    fault = (
        f"the database has schema {found}, which takes programs of schema {oldest or found} and later; this one knows "
        f"{known[-1]}: install the newer version here, or restore the backup from before the upgrade"
    )
    return Standing(found, known[-1], newer=True, fault=fault)


def require_usable(connection: Connection) -> Standing:
    """The standing of a database that this program may run on.  Raises StartError for another."""
    return _usable(standing(connection))


def _usable(found: Standing) -> Standing:
    if found.fault:
        raise StartError(found.fault)
    return found


def _compatible_from(connection: Connection) -> str | None:
    if not inspect(connection).has_table(_COMPATIBILITY.name):
        return None
    return connection.execute(select(_COMPATIBILITY.c.compatible_from)).scalar_one_or_none()


def _declare(connection: Connection, scripts: Path) -> None:
    """Write what the revision that is now in place says of older programs; revisions before the table say nothing."""
    revision = current(connection)
    if revision is None or not inspect(connection).has_table(_COMPATIBILITY.name):
        return
    walked = ScriptDirectory.from_config(alembic_config(scripts=scripts)).walk_revisions()
    oldest = next(script.module.compatible_from for script in walked if script.revision == revision)
    connection.execute(delete(_COMPATIBILITY))
    connection.execute(insert(_COMPATIBILITY).values(id=1, compatible_from=oldest))
