# SPDX-License-Identifier: Apache-2.0
"""What every service is made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from sqlalchemy import Connection

from cloister_audit.ledger import Ledger
from cloister_server.blocking import Blocking
from cloister_server.config import Config
from cloister_server.database.hints import announce
from cloister_server.database.unit_of_work import Transaction, UnitOfWork
from cloister_server.enrolment_keys import EnrolmentKeys
from cloister_server.heads import Heads
from cloister_server.issuing import Issuer
from cloister_server.journal import Journal
from cloister_server.metrics.recorder import Recorder
from cloister_server.notices.setup import Notices
from cloister_server.notifier import Notifier
from cloister_server.rosters import Clock, Rosters
from cloister_server.store import Store
from cloister_server.uploads import Uploads

T = TypeVar("T")


@dataclass(frozen=True)
class Site:
    """The parts of a running control plane."""

    config: Config
    unit_of_work: UnitOfWork
    ledger: Ledger
    heads: Heads
    rosters: Rosters
    enrolment_keys: EnrolmentKeys
    issuer: Issuer
    store: Store
    uploads: Uploads
    notifier: Notifier
    notices: Notices
    blocking: Blocking
    journal: Journal
    metrics: Recorder
    clock: Clock
    """Unix seconds, for the ages of documents; leases go by the database's clock."""

    async def change(self, name: str, work: Callable[[Transaction], T]) -> T:
        """Run a unit of work in the pool and wake whoever waits, at the site's other control planes too."""

        def announced(tx: Transaction) -> T:
            result = work(tx)
            announce(tx.connection)
            return result

        result = await self.blocking.run(self.unit_of_work.run, name, announced)
        self.notifier.notify()
        return result

    async def record(self, name: str, work: Callable[[Transaction], T]) -> T:
        """The same for a read, which leaves an entry but changes nothing that anybody waits for."""
        return await self.blocking.run(self.unit_of_work.run, name, work)

    async def look(self, work: Callable[[Connection], T]) -> T:
        """Run a query that leaves no entry."""
        return await self.blocking.run(self.unit_of_work.read, work)
