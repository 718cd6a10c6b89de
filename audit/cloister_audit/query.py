# SPDX-License-Identifier: Apache-2.0
"""Reading entries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import Connection, select

from cloister_audit.tables import audit_entry, audit_index

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import ColumnElement

_BATCH = 500


@dataclass(frozen=True)
class Filter:
    """Which entries; an empty or None field matches all.  Times in microseconds since 1970, UTC."""

    action: str = ""
    actor: str = ""
    object_id: str = ""
    since_us: int | None = None
    until_us: int | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        pairs = (
            (audit_index.c.action, self.action),
            (audit_index.c.actor, self.actor),
            (audit_index.c.object_id, self.object_id),
        )
        found = [column == value for column, value in pairs if value]
        if self.since_us is not None:
            found.append(audit_index.c.ts >= self.since_us)
        if self.until_us is not None:
            found.append(audit_index.c.ts < self.until_us)
        return found


def entries(connection: Connection, wanted: Filter, after_seq: int, limit: int) -> list[tuple[int, bytes]]:
    """Position and canonical bytes of matching entries after a position (-1 for the start), oldest first."""
    query = (
        select(audit_entry.c.seq, audit_entry.c.body)
        .join(audit_index, audit_index.c.seq == audit_entry.c.seq)
        .where(audit_entry.c.seq > after_seq, *wanted.conditions())
        .order_by(audit_entry.c.seq)
        .limit(limit)
    )
    return [(row.seq, row.body) for row in connection.execute(query)]


def body(connection: Connection, seq: int) -> bytes | None:
    """Canonical bytes of one entry, or None."""
    found: bytes | None = connection.execute(
        select(audit_entry.c.body).where(audit_entry.c.seq == seq)
    ).scalar_one_or_none()
    return found


def stream(connection: Connection, start: int, end: int) -> Iterator[bytes]:
    """Canonical bytes of entries [start, end), in order, a batch at a time."""
    for first in range(start, end, _BATCH):
        query = (
            select(audit_entry.c.body)
            .where(audit_entry.c.seq >= first, audit_entry.c.seq < min(first + _BATCH, end))
            .order_by(audit_entry.c.seq)
        )
        yield from connection.execute(query).scalars()
