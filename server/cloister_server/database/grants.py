# SPDX-License-Identifier: Apache-2.0
"""What the roles of deploy/postgres/roles.sql may do with each table; granted by every migration on PostgreSQL.

Threat: whoever takes over the control plane's process gets its database role.  So that role changes no schema, and
of the audit log it may write new entries and read: what is logged cannot be rewritten through it, only be forked from
a point on, which checkpoints show.  `audit_head` is the ledger's lock and frontier and is derivable, so it is updated.
"""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Connection, inspect, text

APPLICATION = "cloister_app"
CONSOLE = "cloister_console"

INSERT = ("SELECT", "INSERT")
UPDATE = ("SELECT", "INSERT", "UPDATE")
ALL = ("SELECT", "INSERT", "UPDATE", "DELETE")

APPLICATION_MAY: Mapping[str, tuple[str, ...]] = {
    "alembic_version": ("SELECT",),
    "schema_compatibility": ("SELECT",),
    "audit_entry": INSERT,
    "audit_node": INSERT,
    "audit_checkpoint": INSERT,
    "audit_index": INSERT,
    "audit_head": ("SELECT", "UPDATE"),
    "roster": INSERT,
    "policy": INSERT,
    "sealed_object": UPDATE,
    "object_grant": ("SELECT", "INSERT", "DELETE"),
    "job": UPDATE,
    "job_input": INSERT,
    "job_attempt": UPDATE,
    "job_event": INSERT,
    "job_step": UPDATE,
    "artifact": INSERT,
    "artifact_figures": INSERT,
    "model_version": UPDATE,
    "release": UPDATE,
    "release_approval": INSERT,
    "opening": INSERT,
    "enrolment_token": UPDATE,
    "maintenance": ("SELECT", "INSERT", "DELETE"),
    "worker_host": UPDATE,
    "team_quota": UPDATE,
    "notice": ALL,
}
"""Every table stands here; a test says so.  What a newer program added (a restore may meet it) is not for this one."""

HIDDEN_FROM_CONSOLE = frozenset({"object_grant"})
"""Wraps of keys: of no use to who reads the register."""


def apply(connection: Connection) -> None:
    """Grant exactly what stands above, to those of the roles that exist.  Needs the tables' owner."""
    if connection.dialect.name != "postgresql":
        return
    query = text("SELECT rolname FROM pg_roles WHERE rolname IN (:application, :console)")
    roles = set(connection.execute(query, {"application": APPLICATION, "console": CONSOLE}).scalars())
    tables = sorted(inspect(connection).get_table_names())
    for role in sorted(roles):
        for table in tables:
            granted = _granted(role, table)
            connection.execute(text(f'REVOKE ALL ON TABLE "{table}" FROM {role}'))
            if granted:
                connection.execute(text(f'GRANT {", ".join(granted)} ON TABLE "{table}" TO {role}'))


def _granted(role: str, table: str) -> tuple[str, ...]:
    if role == APPLICATION:
        return APPLICATION_MAY.get(table, ())
    return () if table in HIDDEN_FROM_CONSOLE else ("SELECT",)
