# SPDX-License-Identifier: Apache-2.0
"""What wakes the calls that wait at another control plane."""

import io
import queue
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from cloister_server.database.engine import Database, open_database
from cloister_server.database.hints import Listener, announce
from cloister_server.journal import Journal
from served_site import Founded, served
from site_objects import create_dataset, owned

SECONDS = 60.0


@pytest.fixture
def url(postgres_url: Callable[[], str]) -> str:
    return postgres_url()


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    database = open_database(url)
    yield database
    database.dispose()


@pytest.fixture
def woken(url: str) -> Iterator["queue.Queue[int]"]:
    """A listener that listens already; each wake is an item."""
    heard: queue.Queue[int] = queue.Queue()
    database = open_database(url)
    listener = Listener(database.reader, lambda: heard.put(1), Journal(io.StringIO()))
    listener.start()
    heard.get(timeout=SECONDS)  # it listens from now on; what was before it cannot know
    yield heard
    listener.stop()
    database.dispose()


def test_a_hint_comes_with_the_commit(database: Database, woken: "queue.Queue[int]") -> None:
    """A transaction that is committed wakes once, one that is undone does not."""
    with database.writer.connect() as connection, connection.begin() as undone:
        announce(connection)
        undone.rollback()
    with database.writer.begin() as connection:
        announce(connection)
        announce(connection)
    assert 1 == woken.get(timeout=SECONDS)
    assert woken.empty()


def test_a_listener_whose_connection_was_cut_listens_again(database: Database, woken: "queue.Queue[int]") -> None:
    """After its connection is gone it takes a new one and wakes everybody, who may have missed something; then hints
    arrive as before.
    """
    with database.writer.begin() as connection:
        cut = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE query LIKE 'LISTEN %'"
        assert 1 == connection.execute(sa.text(cut)).scalar_one()
    assert 1 == woken.get(timeout=SECONDS)
    with database.writer.begin() as connection:
        announce(connection)
    assert 1 == woken.get(timeout=SECONDS)


def test_a_change_at_a_site_is_a_hint_to_the_others(tmp_path: Path, url: str) -> None:
    """Whoever listens on the site's database hears of what a member changes."""
    heard: queue.Queue[int] = queue.Queue()
    with served(Founded(tmp_path), url, Journal(io.StringIO())) as live:
        listener = Listener(live.database.reader, lambda: heard.put(1), Journal(io.StringIO()))
        listener.start()
        heard.get(timeout=SECONDS)
        create_dataset(live.caller("alice"), owned(live.founded, "alice"))
        assert 1 == heard.get(timeout=SECONDS)
        listener.stop()
