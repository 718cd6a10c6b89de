# SPDX-License-Identifier: Apache-2.0
"""OperationsService."""

from __future__ import annotations

from cloister.api.v1 import operations_pb2, operations_pb2_grpc
from cloister.evidence.entry import Subject
from cloister_server.calls import Context, current_call
from cloister_server.operations import maintenance, quotas, workers
from cloister_server.site import Site


class OperationsService(operations_pb2_grpc.OperationsServiceServicer):
    """Maintenance and worker hosts."""

    def __init__(self, site: Site) -> None:
        self._site = site

    async def GetMaintenance(
        self, request: operations_pb2.GetMaintenanceRequest, context: Context
    ) -> operations_pb2.GetMaintenanceResponse:
        call, site = current_call(), self._site
        subject = Subject("site", site.config.site)
        await site.record("site.read", lambda tx: tx.record(call.event("site.read", subject)))
        row = await site.look(maintenance.find)
        return operations_pb2.GetMaintenanceResponse(maintenance=None if row is None else row.message())

    async def BeginMaintenance(
        self, request: operations_pb2.BeginMaintenanceRequest, context: Context
    ) -> operations_pb2.BeginMaintenanceResponse:
        call, site = current_call(), self._site
        name = site.config.site
        return await site.change("maintenance", lambda tx: maintenance.begin(tx, call, name, request))

    async def EndMaintenance(
        self, request: operations_pb2.EndMaintenanceRequest, context: Context
    ) -> operations_pb2.EndMaintenanceResponse:
        call, site = current_call(), self._site
        await site.change("maintenance", lambda tx: maintenance.end(tx, call, site.config.site))
        return operations_pb2.EndMaintenanceResponse()

    async def ListWorkers(
        self, request: operations_pb2.ListWorkersRequest, context: Context
    ) -> operations_pb2.ListWorkersResponse:
        call, site = current_call(), self._site
        roster, now = site.rosters.valid(), site.clock()
        subject = Subject("site", site.config.site)
        await site.record("worker.list", lambda tx: tx.record(call.event("worker.list", subject)))
        found = await site.look(lambda connection: workers.inventory(connection, roster, now))
        return operations_pb2.ListWorkersResponse(workers=found)

    async def SetWorkerMode(
        self, request: operations_pb2.SetWorkerModeRequest, context: Context
    ) -> operations_pb2.SetWorkerModeResponse:
        call, site = current_call(), self._site
        roster, now = site.rosters.valid(), site.clock()
        worker = await site.change("worker.mode", lambda tx: workers.set_mode(tx, call, roster, request, now))
        return operations_pb2.SetWorkerModeResponse(worker=worker)

    async def ListUsage(
        self, request: operations_pb2.ListUsageRequest, context: Context
    ) -> operations_pb2.ListUsageResponse:
        call, site = current_call(), self._site
        roster = site.rosters.valid()
        found = await site.record("quota.list", lambda tx: quotas.list_usage(tx, call, roster))
        return operations_pb2.ListUsageResponse(teams=found)

    async def SetQuota(
        self, request: operations_pb2.SetQuotaRequest, context: Context
    ) -> operations_pb2.SetQuotaResponse:
        call, site = current_call(), self._site
        roster = site.rosters.valid()
        usage = await site.change("quota.set", lambda tx: quotas.set_limits(tx, call, roster, request))
        return operations_pb2.SetQuotaResponse(usage=usage)
