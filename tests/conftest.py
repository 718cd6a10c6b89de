# SPDX-License-Identifier: Apache-2.0
"""Fixtures for every test: a real PostgreSQL, and hypothesis without a clock."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import settings

from postgres_server import PostgresServer, running_server

HERE = Path(__file__).parent
settings.register_profile("cloister", deadline=None)  # no assertion on time
settings.load_profile("cloister")

SLOWEST_FIRST = ("acceptance", "integration", "contract", "unit")
"""Folders in the order in which processes take modules: a slow one that starts last keeps the others waiting."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order by folder; within one the order stays random."""
    ranks = {str(HERE / folder): rank for rank, folder in enumerate(SLOWEST_FIRST)}
    items.sort(key=lambda item: min((rank for at, rank in ranks.items() if str(item.path).startswith(at)), default=0))


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """One server for the session, with the durability of production; its absence is an error."""
    with running_server() as server:
        yield server


@pytest.fixture(scope="module")
def postgres_databases(postgres_server: PostgresServer) -> Iterator[Callable[[], str]]:
    """The same for databases that the tests of a module share."""
    with fresh_databases(postgres_server) as fresh:
        yield fresh


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Iterator[Callable[[], str]]:
    """Return a function that makes a fresh database and returns its URL; they are dropped after the test."""
    with fresh_databases(postgres_server) as fresh:
        yield fresh


@contextmanager
def fresh_databases(server: PostgresServer) -> Iterator[Callable[[], str]]:
    """A maker of databases, which are dropped at the end."""
    made: list[str] = []

    def fresh() -> str:
        made.append(server.create_database())
        return made[-1]

    yield fresh
    for url in made:
        server.drop_database(url)
