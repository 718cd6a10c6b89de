# SPDX-License-Identifier: Apache-2.0
"""grpc.health.v1: SERVING only while a change could be made and logged.

The probe appends an entry to the log and rolls it back: that fails whenever a real change would.
"""

from __future__ import annotations

from grpc_health.v1 import health_pb2  # type: ignore[import-untyped]
from grpc_health.v1.health import aio  # type: ignore[import-untyped]
from sqlalchemy.exc import SQLAlchemyError

from cloister.evidence.entry import Event, Subject
from cloister.sd_notify import ServiceManager
from cloister_audit.errors import AuditError
from cloister_server.calls import SYSTEM
from cloister_server.site import Site

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class HealthCalls:
    """The three methods; the library's servicer lacks List."""

    def __init__(self) -> None:
        self.inner = aio.HealthServicer()
        self.statuses: dict[str, int] = {}

    async def Check(self, request: object, context: object) -> object:  # noqa: N802
        return await self.inner.Check(request, context)

    async def Watch(self, request: object, context: object) -> None:  # noqa: N802
        await self.inner.Watch(request, context)

    async def List(self, request: object, context: object) -> object:  # noqa: N802
        answers = {name: health_pb2.HealthCheckResponse(status=status) for name, status in self.statuses.items()}
        return health_pb2.HealthListResponse(statuses=answers)


class Health:
    """Keeps the health service's answers."""

    def __init__(self, site: Site, services: tuple[str, ...], manager: ServiceManager) -> None:
        """`manager` is told in its status line what keeps the site from serving."""
        self._manager = manager
        self._site = site
        self._names = ("", *services)
        self._shown: int | None = None
        self.servicer = HealthCalls()

    async def update(self) -> None:
        """Look, and answer accordingly from now on."""
        fault = await self._site.blocking.run(probe, self._site)
        status = NOT_SERVING if fault else SERVING
        if status != self._shown:
            self._site.journal.write("error" if fault else "info", "health", serving=not fault, fault=fault)
            self._manager.status(f"not serving: {fault}" if fault else "serving")
        self._shown = status
        self._site.metrics.serving(now=not fault)
        for name in self._names:
            self.servicer.statuses[name] = status
            await self.servicer.inner.set(name, status)

    async def stop(self) -> None:
        await self.servicer.inner.enter_graceful_shutdown()


def probe(site: Site) -> str:
    """What keeps the site from serving, in one word, or nothing."""
    if not site.store.has_room():
        return "storage"
    try:
        with site.unit_of_work.database.writer.connect() as connection, connection.begin() as transaction:
            site.ledger.append(connection, [Event("site.read", SYSTEM, Subject("log", site.config.log_origin))])
            transaction.rollback()
    except AuditError:
        return "audit_log"
    except SQLAlchemyError:
        return "database"
    return ""
