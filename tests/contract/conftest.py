# SPDX-License-Identifier: Apache-2.0
"""Every test of this folder that asks for `database` or `engine` runs on SQLite and on PostgreSQL.

The schema is made once for each: SQLite's file is copied, PostgreSQL's tables are emptied.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy import Engine

from cloister.evidence.merkle import Frontier
from cloister_audit.tables import audit_head
from cloister_server.database.engine import Database, open_database
from cloister_server.migrations.schema import METADATA, upgrade
from postgres_server import PostgresServer
from queue_bench import Bench
from served_site import Founded


@pytest.fixture(params=["sqlite", "postgresql"])
def backend(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def empty_database(backend: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """Engines of a database without a schema."""
    if backend == "sqlite":
        url = f"sqlite:///{tmp_path / 'empty.db'}"
    else:
        fresh: Callable[[], str] = request.getfixturevalue("postgres_url")
        url = fresh()
    database = open_database(url)
    yield database
    database.dispose()


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with the newest schema."""
    path = tmp_path_factory.mktemp("template") / "template.db"
    database = open_database(f"sqlite:///{path}")
    upgrade(database)
    database.dispose()
    return path


@pytest.fixture(scope="session")
def postgres_database(postgres_server: PostgresServer) -> Iterator[Database]:
    """One database with the newest schema."""
    url = postgres_server.create_database()
    database = open_database(url)
    upgrade(database)
    yield database
    database.dispose()
    postgres_server.drop_database(url)


@pytest.fixture
def database(backend: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """Engines of an empty database with the newest schema."""
    if backend == "sqlite":
        path = tmp_path / "contract.db"
        shutil.copyfile(request.getfixturevalue("sqlite_template"), path)
        database = open_database(f"sqlite:///{path}")
        yield database
        database.dispose()
    else:
        database = request.getfixturevalue("postgres_database")
        _empty(database)
        yield database


@pytest.fixture
def engine(database: Database) -> Engine:
    """The writing engine alone."""
    return database.writer


@pytest.fixture(scope="session")
def founded(tmp_path_factory: pytest.TempPathFactory) -> Founded:
    """Keys and roster of a site."""
    return Founded(tmp_path_factory.mktemp("founded"))


@pytest.fixture
def bench(founded: Founded, database: Database) -> Bench:
    """A queue with a policy in force, and a base model and a dataset of each team."""
    return Bench(founded, database)


def _empty(database: Database) -> None:
    kept = "schema_compatibility"  # of the schema, not of what is in it
    names = ", ".join(table for metadata in METADATA for table in metadata.tables if table != kept)
    with database.writer.begin() as connection:
        connection.execute(sa.text(f"TRUNCATE {names}"))
        connection.execute(sa.insert(audit_head).values(id=1, frontier=Frontier().to_bytes()))
