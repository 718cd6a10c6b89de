# SPDX-License-Identifier: Apache-2.0
"""grpc.health.v1: SERVING only while a change could be made and logged.

The probe appends an entry to the log and rolls it back: that fails whenever a real change would.  It also looks at the
schema, which a newer program may have changed under this one.
"""

from __future__ import annotations

from dataclasses import dataclass

from grpc_health.v1 import health_pb2  # type: ignore[import-untyped]
from grpc_health.v1.health import aio  # type: ignore[import-untyped]
from sqlalchemy.exc import SQLAlchemyError

from cloister.evidence.entry import Event, Subject
from cloister.sd_notify import ServiceManager
from cloister_audit.errors import AuditError
from cloister_server.calls import SYSTEM
from cloister_server.migrations.schema import Standing, standing
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
        self._schema: str | None = None
        self.servicer = HealthCalls()

    async def update(self) -> None:
        """Look, and answer accordingly from now on."""
        seen = await self._site.blocking.run(probe, self._site)
        self._tell_schema(seen.schema)
        fault = seen.fault
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

    def _tell_schema(self, schema: Standing | None) -> None:
        """One line for each revision that is newer than this program."""
        if schema is None or not schema.newer or schema.found == self._schema:
            return
        self._schema = schema.found
        fields = {"found": schema.found, "known": schema.newest, "usable": not schema.fault}
        self._site.journal.write("error" if schema.fault else "warn", "schema_is_newer", **fields)


@dataclass(frozen=True)
class Seen:
    """What one look at the site found."""

    fault: str
    """What keeps the site from serving, in one word, or nothing."""
    schema: Standing | None
    """None where the database does not say."""


def probe(site: Site) -> Seen:
    """Try what a change needs."""
    if not site.store.has_room():
        return Seen("storage", None)
    try:
        with site.unit_of_work.database.writer.connect() as connection, connection.begin() as transaction:
            schema = standing(connection)
            site.ledger.append(connection, [Event("site.read", SYSTEM, Subject("log", site.config.log_origin))])
            transaction.rollback()
    except AuditError:
        return Seen("audit_log", None)
    except SQLAlchemyError:
        return Seen("database", None)
    return Seen("schema" if schema.fault else "", schema)
