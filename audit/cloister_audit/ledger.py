# SPDX-License-Identifier: Apache-2.0
"""Appending to the log, inside the transaction of the change that the entries record.

Crash order: business statements, then `append` (head row locked last, so that nothing slow runs under the
lock), then the transaction's commit.  The commit point is that commit: before it neither the change nor its
entries exist, after it both do.  Checkpoints are signed over committed entries only (`checkpoints.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import Connection, insert, select, update
from sqlalchemy.exc import SQLAlchemyError

from cloister.evidence.entry import Entry, Event
from cloister.evidence.merkle import Frontier, leaf_hash
from cloister_audit.catalogue import ACTIONS
from cloister_audit.errors import AuditCorruptError, AuditWriteError, UnknownActionError
from cloister_audit.tables import audit_entry, audit_head, audit_index, audit_node

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


@dataclass(frozen=True)
class Head:
    """Size and root of the committed log."""

    size: int
    root: bytes


class Ledger:
    """The audit log in SQL."""

    def __init__(self, clock: Callable[[], int]) -> None:
        """`clock` gives microseconds since 1970, UTC."""
        self._clock = clock

    def append(self, connection: Connection, events: Sequence[Event]) -> list[int]:
        """Add entries as the last statements of the caller's transaction; return their positions.

        Raises AuditWriteError: the caller must roll back, for the change must not happen without its entries.
        """
        for event in events:
            if event.action not in ACTIONS:
                raise UnknownActionError(f"audit action {event.action!r} is not in the catalogue")
        try:
            frontier = _locked_frontier(connection)
            rows = _Rows(frontier)
            for event in events:
                rows.add(Entry(rows.frontier.size, self._clock(), event))
            rows.write(connection)
        except SQLAlchemyError as error:
            raise AuditWriteError(f"the audit log cannot be written: {type(error).__name__}") from error
        return list(range(frontier.size, rows.frontier.size))

    def head(self, connection: Connection) -> Head:
        """The head as this connection's transaction sees it."""
        frontier = _frontier(connection.execute(select(audit_head.c.frontier)).scalar_one_or_none())
        return Head(frontier.size, frontier.root())


def _frontier(stored: bytes | None) -> Frontier:
    if stored is None:
        raise AuditCorruptError("the ledger has no head row: run the database migrations, or restore a backup")
    return Frontier.from_bytes(stored)


def _locked_frontier(connection: Connection) -> Frontier:
    # On PostgreSQL this row lock makes positions gapless; SQLite's BEGIN IMMEDIATE holds its one write lock.
    query = select(audit_head.c.frontier).where(audit_head.c.id == 1).with_for_update()
    return _frontier(connection.execute(query).scalar_one_or_none())


class _Rows:
    """Rows to insert for a batch of entries, and the frontier after them."""

    def __init__(self, frontier: Frontier) -> None:
        self.frontier = frontier
        self._entries: list[dict[str, object]] = []
        self._nodes: list[dict[str, object]] = []
        self._index: list[dict[str, object]] = []

    def add(self, entry: Entry) -> None:
        body = entry.to_bytes()
        size = self.frontier.size
        self.frontier, completed = self.frontier.append_nodes(leaf_hash(body))
        self._entries.append({"seq": entry.seq, "body": body})
        self._nodes.extend(
            {"level": level, "idx": size >> level, "hash": value} for level, value in enumerate(completed)
        )
        event = entry.event
        self._index.append(
            {
                "seq": entry.seq,
                "ts": entry.ts,
                "action": event.action,
                "outcome": event.outcome,
                "actor": event.actor.id[:128],
                "object_type": event.object.type[:32],
                "object_id": event.object.id[:128],
            }
        )

    def write(self, connection: Connection) -> None:
        if not self._entries:
            return
        connection.execute(insert(audit_entry), self._entries)
        connection.execute(insert(audit_node), self._nodes)
        connection.execute(insert(audit_index), self._index)
        connection.execute(update(audit_head).where(audit_head.c.id == 1).values(frontier=self.frontier.to_bytes()))
