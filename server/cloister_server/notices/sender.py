# SPDX-License-Identifier: Apache-2.0
"""Delivers what is due to one target, one notice after the other, until the server stops.

Each target has a sender of its own, so that a receiver that hangs keeps no hook waiting.  Several control planes may
send at once: a notice is leased to one of them at a time.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from cloister_server.blocking import Blocking
from cloister_server.database.unit_of_work import UnitOfWork
from cloister_server.journal import Journal
from cloister_server.metrics.recorder import Recorder
from cloister_server.notices.outbox import NoticeRow, Outbox
from cloister_server.notices.target import Fault, Target
from cloister_server.notifier import Notifier

_LEASE_MARGIN_SECONDS = 30.0
_DOUBLINGS = 16


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How long a delivery may take, and when it is tried again.  Seconds."""

    limit: float
    give_up: float
    """After the job's end."""
    poll: float
    """Between two looks, where nobody wakes the sender."""
    first_wait: float = 5.0
    longest_wait: float = 3600.0

    @property
    def lease(self) -> float:
        """Longer than a delivery, and than writing down how it ended."""
        return self.limit + _LEASE_MARGIN_SECONDS

    def wait(self, attempts: int, chance: float) -> float:
        """After so many attempts: doubled each time, and between half and all of that.

        `chance` is between 0 and 1; it keeps notices that failed together from coming back together.
        """
        longest = min(self.first_wait * 2.0 ** min(attempts - 1, _DOUBLINGS), self.longest_wait)
        return longest * (0.5 + chance / 2)


@dataclass(frozen=True)
class Sender:
    """Sends to one target."""

    unit_of_work: UnitOfWork
    blocking: Blocking
    journal: Journal
    metrics: Recorder
    outbox: Outbox
    target: Target
    news: Notifier
    pace: Pace
    chance: Callable[[], float] = random.random

    async def run(self) -> None:
        """Send for ever."""
        while True:
            try:
                while await self.send_next():
                    pass
            except Exception as error:  # noqa: BLE001 - whatever it is, the next look must come: notices wait
                self.journal.failure("notices_failed", error, target=self.target.name)
            await self.news.wait(self.pace.poll)

    async def send_next(self) -> bool:
        """Try the notice that is due longest; False where none is due."""
        taken = await self.blocking.run(self._take)
        if taken is None:
            return False
        fault = await self.target.deliver(taken)
        if fault is None:
            await self.blocking.run(self.unit_of_work.run, "notice.sent", lambda tx: self.outbox.delivered(tx, taken))
            self.metrics.notice_sent(self.target.name)
        else:
            await self._failed(taken, fault)
        return True

    def _take(self) -> NoticeRow | None:
        name = self.target.name
        # Looking first: taking makes every other writer of SQLite wait, and mostly there is nothing.
        if not self.unit_of_work.read(lambda connection: self.outbox.is_due(connection, name)):
            return None
        return self.unit_of_work.run("notice.take", lambda tx: self.outbox.take(tx, name, self.pace.lease))

    async def _failed(self, taken: NoticeRow, fault: Fault) -> None:
        wait = self.pace.wait(taken.attempts, self.chance())
        given_up = await self.blocking.run(
            self.unit_of_work.run,
            "notice.failed",
            lambda tx: self.outbox.failed(tx, taken, wait, self.pace.give_up),
        )
        self.metrics.notice_failed(self.target.name, given_up=given_up)
        self.journal.write(
            "error" if given_up else "warn",
            "notice_given_up" if given_up else "notice_failed",
            target=self.target.name,
            notice=taken.id,
            job=taken.job_id,
            attempts=taken.attempts,
            fault=fault.word,
            figure=fault.figure,
        )
