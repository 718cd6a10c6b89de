# SPDX-License-Identifier: Apache-2.0
"""Fixtures for every test: a real PostgreSQL, and hypothesis without a clock."""

from collections.abc import Callable, Iterator

import pytest
from hypothesis import settings

from postgres_server import PostgresServer, running_server

settings.register_profile("cloister", deadline=None)  # no assertion on time
settings.load_profile("cloister")


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """One server for the session, with the durability of production; its absence is an error."""
    with running_server() as server:
        yield server


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Iterator[Callable[[], str]]:
    """Return a function that makes a fresh database and returns its URL; they are dropped after the test."""
    made: list[str] = []

    def fresh() -> str:
        made.append(postgres_server.create_database())
        return made[-1]

    yield fresh
    for url in made:
        postgres_server.drop_database(url)
