# SPDX-License-Identifier: Apache-2.0
"""Notices that are still to be delivered: written in the transaction of the job's end, deleted once delivered.

Crash order: (1) the job's end and its notices commit together; (2) a sender takes a notice, which counts an attempt and
makes it due again after the lease; (3) it delivers; (4) it deletes the notice.  A crash between (3) and (4) delivers
twice, none delivers never.  `attempts` is the fencing token: a sender whose lease ran out neither deletes nor delays
what another has taken.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, Select, delete, insert, select, update

from cloister_server.database import tables
from cloister_server.database.engine import now_ms
from cloister_server.database.rows import JobRow, one
from cloister_server.database.unit_of_work import Transaction
from cloister_server.notices.notice import notice_body

_NOTICE = tables.notice
_JOB = tables.job

Clock = Callable[[Connection], int]
"""Milliseconds since 1970, the same for every control plane of the site."""


def database_clock(connection: Connection) -> int:
    """The database's clock: senders of several machines measure leases by it."""
    return int(connection.execute(select(now_ms(connection))).scalar_one())


@dataclass(frozen=True, kw_only=True)
class NoticeRow:
    """A notice that a sender has taken; times are milliseconds since 1970."""

    id: str
    target: str
    job_id: str
    body: str
    attempts: int
    created_at: int
    due_at: int


class Outbox:
    """The table of notices, for some targets."""

    def __init__(
        self,
        targets: Sequence[str],
        clock: Clock = database_clock,
        new_id: Callable[[], str] = lambda: str(uuid.uuid4()),
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        """`wake` is called from any thread, once a notice is durable."""
        self._targets = tuple(targets)
        self._clock = clock
        self._new_id = new_id
        self._wake = wake

    def job_ended(self, tx: Transaction, job: JobRow, state: str, error_code: str) -> None:
        """Write one notice for each target; without targets nothing."""
        if not self._targets:
            return
        finished_at = tx.connection.execute(select(_JOB.c.finished_at).where(_JOB.c.id == job.id)).scalar_one()
        notice_id, now = self._new_id(), self._clock(tx.connection)
        body = notice_body(notice_id, job, state, error_code, finished_at)
        row = {"id": notice_id, "job_id": job.id, "body": body, "attempts": 0, "created_at": now, "due_at": now}
        tx.connection.execute(insert(_NOTICE), [{**row, "target": target} for target in self._targets])
        tx.afterwards(self._wake)

    def is_due(self, connection: Connection, target: str) -> bool:
        """A cheap look before one is taken."""
        return connection.execute(self._due(connection, target)).first() is not None

    def take(self, tx: Transaction, target: str, lease_seconds: float) -> NoticeRow | None:
        """Lease the notice that is due longest, or None.  No other sender gets it before the lease ran out."""
        connection = tx.connection
        found = connection.execute(self._due(connection, target).with_for_update(skip_locked=True)).scalar_one_or_none()
        if found is None:
            return None
        this = (_NOTICE.c.id == found) & (_NOTICE.c.target == target)
        until = self._clock(connection) + int(lease_seconds * 1000)
        connection.execute(update(_NOTICE).where(this).values(attempts=_NOTICE.c.attempts + 1, due_at=until))
        return one(connection, select(_NOTICE).where(this), NoticeRow)

    def delivered(self, tx: Transaction, taken: NoticeRow) -> None:
        """The target took it."""
        tx.connection.execute(delete(_NOTICE).where(_held(taken)))

    def failed(self, tx: Transaction, taken: NoticeRow, wait_seconds: float, give_up_seconds: float) -> bool:
        """Try again after a while, or give up where that would be later than `give_up_seconds` after the job's end.

        Returns whether it was given up.
        """
        due_at = self._clock(tx.connection) + int(wait_seconds * 1000)
        if due_at <= taken.created_at + int(give_up_seconds * 1000):
            tx.connection.execute(update(_NOTICE).where(_held(taken)).values(due_at=due_at))
            return False
        return tx.connection.execute(delete(_NOTICE).where(_held(taken))).rowcount > 0

    def _due(self, connection: Connection, target: str) -> Select[tuple[str]]:
        return (
            select(_NOTICE.c.id)
            .where(_NOTICE.c.target == target, _NOTICE.c.due_at <= self._clock(connection))
            .order_by(_NOTICE.c.due_at, _NOTICE.c.id)
            .limit(1)
        )


def _held(taken: NoticeRow) -> ColumnElement[bool]:
    return (_NOTICE.c.id == taken.id) & (_NOTICE.c.target == taken.target) & (_NOTICE.c.attempts == taken.attempts)
