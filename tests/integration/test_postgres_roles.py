# SPDX-License-Identifier: Apache-2.0
"""What each role of the deployed database may do, on a real PostgreSQL.

That the application's role is enough for the whole main flow is shown by test_server_main_path.py.
"""

from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from cloister.evidence.entry import Event, Subject
from cloister_audit.ledger import Ledger
from cloister_audit.tables import metadata as audit_metadata
from cloister_server.calls import SYSTEM
from cloister_server.database import tables
from cloister_server.database.engine import Database, open_database
from cloister_server.database.grants import APPLICATION_MAY
from cloister_server.database.unit_of_work import UnitOfWork
from cloister_server.migrations import schema
from postgres_roles import RoleUrls, with_roles
from postgres_server import PostgresServer

DENIED = r"permission denied|must be owner|read-only transaction"
EVENT = Event("site.read", SYSTEM, Subject("log", "l"))
LOGGED = ("audit_entry", "audit_node", "audit_checkpoint", "audit_index")


@pytest.fixture(scope="module")
def urls(postgres_server: PostgresServer) -> Iterator[RoleUrls]:
    url = postgres_server.create_database()
    yield with_roles(url)
    postgres_server.drop_database(url)


@pytest.fixture(scope="module")
def application(urls: RoleUrls) -> Iterator[Database]:
    database = open_database(urls.application)
    yield database
    database.dispose()


@pytest.fixture(scope="module")
def console(urls: RoleUrls) -> Iterator[Database]:
    database = open_database(urls.console)
    yield database
    database.dispose()


def refused(database: Database, statement: str) -> None:
    with database.writer.begin() as connection, pytest.raises(DBAPIError, match=DENIED):
        connection.execute(sa.text(statement))


def test_the_application_appends_to_the_log(application: Database) -> None:
    """A unit of work of the application's role leaves its entry."""
    UnitOfWork(application, Ledger(lambda: 1)).run("test", lambda tx: tx.record(EVENT))
    with application.reader.connect() as connection:
        assert Ledger(lambda: 1).head(connection).size >= 1


@pytest.mark.parametrize("table", LOGGED)
def test_the_application_rewrites_no_entry(application: Database, table: str) -> None:
    """What is logged can be neither changed, nor deleted, nor truncated."""
    column = next(iter(audit_metadata.tables[table].columns)).name
    for statement in (f"UPDATE {table} SET {column} = 0", f"DELETE FROM {table}", f"TRUNCATE {table}"):  # noqa: S608
        refused(application, statement)


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE mine (id integer)",
        "CREATE TEMPORARY TABLE mine (id integer)",
        "CREATE SCHEMA mine",
        "CREATE FUNCTION mine() RETURNS integer LANGUAGE sql AS 'SELECT 1'",
        "CREATE TRIGGER mine BEFORE INSERT ON audit_entry EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        "ALTER TABLE audit_entry ADD COLUMN mine integer",
        "DROP TABLE audit_entry",
        "SET ROLE cloister_owner",
        "DELETE FROM roster",
        "UPDATE policy SET version = 1",
        "UPDATE alembic_version SET version_num = 'x'",
    ],
)
def test_the_application_changes_no_schema(application: Database, statement: str) -> None:
    """DDL, and whatever would widen what the role may do, is refused."""
    refused(application, statement)


def test_the_application_grants_itself_nothing(application: Database) -> None:
    """Where PostgreSQL only warns of a grant that the role may not give, the privilege is not there afterwards."""
    with application.writer.begin() as connection:
        connection.execute(sa.text("GRANT UPDATE ON audit_head, audit_entry TO cloister_app"))
    refused(application, "UPDATE audit_entry SET body = ''")


def test_the_console_reads_and_no_more(console: Database) -> None:
    """The console reads the register and the log, writes nothing, and does not see wraps of keys."""
    with console.reader.connect() as connection:
        for table in set(APPLICATION_MAY) - {"object_grant"}:
            connection.execute(sa.text(f"SELECT * FROM {table} LIMIT 1"))  # noqa: S608 - names of our own tables
    refused(console, "SELECT * FROM object_grant")
    for statement in ("INSERT INTO audit_entry VALUES (0, '')", "UPDATE job SET priority = 9", "DELETE FROM job"):
        refused(console, statement)
    # Also where it asks for a transaction that may write.
    with console.writer.begin() as connection:
        connection.execute(sa.text("SET TRANSACTION READ WRITE"))
        with pytest.raises(DBAPIError, match="permission denied"):
            connection.execute(sa.text("UPDATE job SET priority = 9"))


def test_every_table_says_what_the_application_may() -> None:
    """A table that is added gets its line in the list of privileges; no audit table may be changed but the head."""
    known = {*tables.metadata.tables, *audit_metadata.tables, "alembic_version"}
    assert known == set(APPLICATION_MAY)
    assert set(LOGGED) == {name for name in audit_metadata.tables if APPLICATION_MAY[name] == ("SELECT", "INSERT")}
    assert set(audit_metadata.tables) - set(LOGGED) == {"audit_head"}


def test_a_migration_takes_back_what_was_granted_by_hand(urls: RoleUrls, application: Database) -> None:
    """Whatever somebody granted, after `migrate` the role has what the list says."""
    owner = open_database(urls.owner)
    with owner.writer.begin() as connection:
        connection.execute(sa.text("GRANT DELETE ON audit_entry TO cloister_app"))
    schema.upgrade(owner)
    owner.dispose()
    refused(application, "DELETE FROM audit_entry")
