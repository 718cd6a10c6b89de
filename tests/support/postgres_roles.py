# SPDX-License-Identifier: Apache-2.0
"""A database with the roles that are deployed, migrated by its owner."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg import sql
from sqlalchemy import make_url

from cloister_server.database.engine import open_database
from cloister_server.migrations.schema import upgrade

ROLES = Path(__file__).parents[2] / "deploy" / "postgres" / "roles.sql"


@dataclass(frozen=True)
class RoleUrls:
    """The same database, by each of its roles."""

    owner: str
    application: str
    console: str


def with_roles(url: str) -> RoleUrls:
    """Run the deployed file in a superuser's empty database, and let the owner make the tables."""
    password = secrets.token_hex(16)
    parsed = make_url(url)
    with psycopg.connect(
        host=str(parsed.query["host"]), user=parsed.username, password=parsed.password, dbname=parsed.database
    ) as connection:
        for _ in range(2):  # running it again changes nothing
            connection.execute(ROLES.read_bytes())
        for role in ("cloister_owner", "cloister_app", "cloister_console"):
            connection.execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(role), password))
    urls = RoleUrls(
        *(
            parsed.set(username=role, password=password).render_as_string(hide_password=False)
            for role in ("cloister_owner", "cloister_app", "cloister_console")
        )
    )
    database = open_database(urls.owner)
    upgrade(database)
    database.dispose()
    return urls
