# SPDX-License-Identifier: Apache-2.0
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from postgres_server import PostgresServer, PostgresUnavailableError, running_server


def test_each_database_is_its_own(postgres_url: Callable[[], str]) -> None:
    """A table made in one fresh database does not exist in the next one."""
    engines = [sa.create_engine(postgres_url()) for _ in range(2)]
    with engines[0].begin() as connection:
        connection.execute(sa.text("CREATE TABLE only_here (id integer)"))
    tables = [sa.inspect(engine).get_table_names() for engine in engines]
    for engine in engines:
        engine.dispose()
    assert tables == [["only_here"], []]


def test_the_server_is_durable_and_unprivileged(
    postgres_server: PostgresServer, postgres_url: Callable[[], str]
) -> None:
    """Commits reach the disk as in production, and the server's user is not root."""
    engine = sa.create_engine(postgres_url())
    with engine.connect() as connection:
        durable = [connection.scalar(sa.text(f"SHOW {name}")) for name in ("fsync", "synchronous_commit")]
    engine.dispose()
    assert durable == ["on", "on"]
    assert Path(f"/proc/{postgres_server.pid}").stat().st_uid != 0


def test_the_server_ends_with_its_context() -> None:
    """Neither the process nor its folder outlives the context."""
    with running_server() as server:
        assert Path(f"/proc/{server.pid}").exists()
    with pytest.raises(ProcessLookupError):
        os.kill(server.pid, 0)
    assert not server.socket_folder.exists()


def test_a_missing_postgres_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without the programs a test that needs them fails with the way to get them, it is not skipped."""
    monkeypatch.setenv("CLOISTER_TEST_POSTGRES", str(tmp_path))
    with pytest.raises(PostgresUnavailableError, match="cannot be run"), running_server():
        pass
