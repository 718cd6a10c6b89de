# SPDX-License-Identifier: Apache-2.0
"""A program on a schema from after its time, on SQLite and on PostgreSQL: the database says whether it may."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, select

from backup_bench import BackupBench
from backup_bench import empty_database as empty_place
from cloister_server.database.engine import Database
from cloister_server.database.tables import job, schema_compatibility
from cloister_server.doctor.database import check_schema
from cloister_server.errors import BackupError, StartError
from cloister_server.migrations import schema
from later_schema import LATER, additive_scripts, breaking_scripts
from queue_bench import Bench
from served_site import Founded


@pytest.fixture
def own(empty_database: Database) -> Database:
    """A database that no other test sees, with this program's schema."""
    schema.upgrade(empty_database)
    return empty_database


@pytest.fixture
def elsewhere(backend: str, tmp_path: Path, postgres_url: Callable[[], str]) -> Iterator[Database]:
    database = empty_place(backend, tmp_path, postgres_url)
    yield database
    database.dispose()


def standing(database: Database) -> schema.Standing:
    with database.reader.connect() as connection:
        return schema.standing(connection)


def found_by_doctor(database: Database) -> list[tuple[str, str]]:
    with database.reader.connect() as connection:
        return [(finding.level, finding.remedy) for finding in check_schema(connection)]


def declared(database: Database) -> str:
    with database.reader.connect() as connection:
        value: str = connection.execute(select(schema_compatibility.c.compatible_from)).scalar_one()
        return value


def test_every_revision_says_which_programs_it_takes() -> None:
    """From the one that made the table on, each names itself or a revision before it."""
    script = ScriptDirectory.from_config(schema.alembic_config())
    saying = schema.history()[schema.history().index("0008") :]
    for revision in script.walk_revisions():
        if revision.revision in saying:
            known = schema.history()[: schema.history().index(revision.revision) + 1]
            assert revision.module.compatible_from in known, revision.revision


def test_an_addition_takes_the_version_before(own: Database, tmp_path: Path, founded: Founded) -> None:
    """On a schema that a newer program only added to, this one works on, and its doctor tells of the rest."""
    bench = Bench(founded, own)
    before = bench.queued()
    assert schema.upgrade(own, scripts=additive_scripts(tmp_path)).found == LATER
    assert schema.Standing(LATER, schema.newest(), newer=True, fault="") == standing(own)
    after = bench.queued()
    assert before.id == bench.leased_job().id
    with own.reader.connect() as connection:
        assert {before.id, after.id} == set(connection.execute(select(job.c.id)).scalars())
    levels = [level for level, _ in found_by_doctor(own)]
    assert ["warning"] == levels


def test_a_break_takes_no_older_version(own: Database, tmp_path: Path) -> None:
    """A schema that says so is refused with both revisions and what to do, by the doctor too."""
    schema.upgrade(own, scripts=breaking_scripts(tmp_path))
    words = rf"schema {LATER}, which takes programs of schema {LATER} and later; this one knows {schema.newest()}"
    with own.reader.connect() as connection, pytest.raises(StartError, match=words):
        schema.require_usable(connection)
    ((level, remedy),) = found_by_doctor(own)
    assert ("failure", True) == (level, "install the newer version" in remedy)


def test_a_newer_schema_that_says_nothing_is_refused(own: Database, tmp_path: Path) -> None:
    """Where the row is gone nobody vouches for older programs."""
    schema.upgrade(own, scripts=additive_scripts(tmp_path))
    with own.writer.begin() as connection:
        connection.execute(schema_compatibility.delete())
    assert "install the newer version" in standing(own).fault


def test_an_older_program_migrates_nothing(own: Database, tmp_path: Path) -> None:
    """`migrate` leaves a newer schema as it is: quietly where it may go on, with an error where it may not."""
    additive, breaking = additive_scripts(tmp_path), breaking_scripts(tmp_path)
    schema.upgrade(own, scripts=additive)
    assert schema.upgrade(own).newer
    assert (LATER, schema.newest()) == (standing(own).found, declared(own))
    schema.downgrade(own, schema.newest(), scripts=additive)
    schema.upgrade(own, scripts=breaking)
    with pytest.raises(StartError, match="install the newer version"):
        schema.upgrade(own)
    assert (LATER, LATER) == (standing(own).found, declared(own))


def test_going_back_takes_the_word_back(own: Database, tmp_path: Path) -> None:
    """After a downgrade the row says what the revision in place says."""
    before, scripts = declared(own), breaking_scripts(tmp_path)
    schema.upgrade(own, scripts=scripts)
    assert LATER == declared(own)
    schema.downgrade(own, schema.newest(), scripts=scripts)
    assert before == declared(own)


def test_a_backup_of_an_addition_comes_back(
    own: Database, elsewhere: Database, tmp_path: Path, founded: Founded
) -> None:
    """What an older program backs up on a newer schema it can restore, and the schema stays the newer one."""
    backups = BackupBench(Bench(founded, own), tmp_path)
    schema.upgrade(own, scripts=additive_scripts(tmp_path))
    made = backups.back_up()
    assert made.log_size == backups.restore(elsewhere).manifest.log_size
    assert (LATER, "") == (standing(elsewhere).found, standing(elsewhere).fault)


def test_a_backup_of_a_break_is_refused(own: Database, elsewhere: Database, tmp_path: Path, founded: Founded) -> None:
    """A backup whose schema takes no older program is not restored by one, and nothing of it is left."""
    backups = BackupBench(Bench(founded, own), tmp_path)
    schema.upgrade(own, scripts=breaking_scripts(tmp_path))
    backups.back_up()
    with pytest.raises(BackupError, match="install the newer version"):
        backups.restore(elsewhere)
    assert [] == inspect(elsewhere.writer).get_table_names()
