# SPDX-License-Identifier: Apache-2.0
"""Signs of life for the service manager: given only after the database answered and the log's head was read.

A control plane whose event loop stands, or that does not get at its database, gives none and is started again.  One
that is merely busy does: the look has a thread and a connection of its own, and does not queue behind calls.
"""

from __future__ import annotations

import asyncio

from sqlalchemy import Connection, text
from sqlalchemy.exc import SQLAlchemyError

from cloister.sd_notify import ServiceManager
from cloister_audit.errors import AuditError
from cloister_server.errors import ServerError
from cloister_server.site import Site


async def keep_alive(site: Site, manager: ServiceManager) -> None:
    """Look and tell, twice in the manager's interval, until cancelled; at once where nobody watches."""
    interval = manager.watchdog_interval
    if interval is None:
        return

    def look(connection: Connection) -> int:
        connection.execute(text("SELECT 1")).scalar_one()
        return site.ledger.head(connection).size

    while True:
        try:
            await asyncio.to_thread(site.unit_of_work.read, look)
        except (ServerError, AuditError, SQLAlchemyError) as error:
            site.journal.failure("no_sign_of_life", error)
        else:
            manager.alive()
        await asyncio.sleep(interval)
