# SPDX-License-Identifier: Apache-2.0
import pytest
from alembic import command
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect

from cloister_audit.ledger import Ledger
from cloister_server.database.engine import Database
from cloister_server.errors import StartError
from cloister_server.migrations import schema


def names(database: Database) -> set[str]:
    return set(inspect(database.writer).get_table_names()) - {"alembic_version"}


def wanted() -> set[str]:
    return {table for metadata in schema.METADATA for table in metadata.tables}


def test_the_history_makes_exactly_the_tables_of_the_code(database: Database) -> None:
    """After an upgrade, `alembic check` finds no difference between the schema and the tables of both packages."""
    with database.writer.begin() as connection:
        command.check(schema.alembic_config(connection))
    assert wanted() == names(database)


def test_the_history_is_one_line() -> None:
    """There is one base, one head, and every revision follows exactly one other."""
    script = ScriptDirectory.from_config(schema.alembic_config())
    revisions = list(script.walk_revisions())
    assert ["0001"] == script.get_bases()
    assert [revisions[0].revision] == script.get_heads()
    assert [None] == [r.down_revision for r in revisions if not isinstance(r.down_revision, str)]


def test_every_step_goes_down_and_up_again(empty_database: Database) -> None:
    """Each revision can be undone and done again, and undoing all of them leaves nothing."""
    script = ScriptDirectory.from_config(schema.alembic_config())
    steps = [revision.revision for revision in reversed(list(script.walk_revisions()))]
    for step in steps:
        schema.upgrade(empty_database, step)
    for before in [*reversed(steps[:-1]), "base"]:
        schema.downgrade(empty_database, before)
    assert set() == names(empty_database)
    schema.upgrade(empty_database)
    assert wanted() == names(empty_database)


def test_upgrading_twice_changes_nothing(database: Database) -> None:
    """A second upgrade keeps the revision, and the ledger keeps its one head row."""
    schema.upgrade(database)
    with database.reader.connect() as connection:
        assert schema.newest() == MigrationContext.configure(connection).get_current_revision()
        assert 0 == Ledger(lambda: 0).head(connection).size


def test_a_look_at_the_schema_leaves_nothing_behind(database: Database) -> None:
    """However often health looks, it asks the same statements: each new one would stay in the engine's cache."""
    compiled: dict[object, object] = {}

    def look() -> int:
        with database.reader.connect().execution_options(compiled_cache=compiled) as connection:
            assert "" == schema.standing(connection).fault
        return len(compiled)

    assert 0 < look() == look()


def test_a_server_does_not_start_on_another_schema(empty_database: Database) -> None:
    """An older schema is refused with the command that mends it."""
    schema.upgrade(empty_database, "0001")
    with empty_database.reader.connect() as connection, pytest.raises(StartError, match="migrate"):
        schema.require_usable(connection)
