# SPDX-License-Identifier: Apache-2.0
"""A real PostgreSQL server for tests, started by the tests themselves."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from psycopg import sql

from postgres_cluster import Cluster, PostgresUnavailableError, client_programs, cluster

__all__ = ["PostgresServer", "PostgresUnavailableError", "client_programs", "running_server"]


@dataclass(frozen=True)
class PostgresServer:
    """A running server; `pid` is its first process."""

    cluster: Cluster
    pid: int

    @property
    def socket_folder(self) -> Path:
        return self.cluster.folder

    def create_database(self) -> str:
        """Make an empty database and return its SQLAlchemy URL."""
        return self.cluster.create_database()

    def drop_database(self, url: str) -> None:
        """Drop what create_database returned; connections still open are cut."""
        name = url.partition("?")[0].rpartition("/")[2]
        self.cluster.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


@contextmanager
def running_server() -> Iterator[PostgresServer]:
    """A server that ends with the context.

    Raises:
        PostgresUnavailableError: no programs were found, or one failed; the message says how.
    """
    with cluster() as made:
        yield PostgresServer(made, made.pid)
