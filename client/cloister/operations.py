# SPDX-License-Identifier: Apache-2.0
"""Running the site, for its admins: maintenance and worker hosts."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from cloister.api.v1 import operations_pb2
from cloister.session import Session

MODES = {
    "active": operations_pb2.WORKER_MODE_ACTIVE,
    "cordoned": operations_pb2.WORKER_MODE_CORDONED,
    "draining": operations_pb2.WORKER_MODE_DRAINING,
}


class Operations:
    """`client.operations`."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def maintenance(self) -> operations_pb2.Maintenance | None:
        """What is in force, or None.  Everybody."""
        stubs = self._session.connection
        answer = stubs.call(stubs.operations.GetMaintenance, operations_pb2.GetMaintenanceRequest())
        return answer.maintenance if answer.HasField("maintenance") else None

    def begin_maintenance(self, reason: str, until: datetime | None = None) -> operations_pb2.BeginMaintenanceResponse:
        """Take nothing new; `until` is aware and is what people are told.  Admins."""
        request = operations_pb2.BeginMaintenanceRequest(reason=reason)
        if until is not None:
            request.until.FromDatetime(until)
        stubs = self._session.connection
        return stubs.call(stubs.operations.BeginMaintenance, request)

    def end_maintenance(self) -> None:
        """Take work again.  Admins."""
        stubs = self._session.connection
        stubs.call(stubs.operations.EndMaintenance, operations_pb2.EndMaintenanceRequest())

    def workers(self) -> list[operations_pb2.Worker]:
        """Every certified host.  Admins."""
        stubs = self._session.connection
        return list(stubs.call(stubs.operations.ListWorkers, operations_pb2.ListWorkersRequest()).workers)

    def set_mode(self, host: str, mode: str) -> operations_pb2.Worker:
        """Say whether a host takes work: one of `MODES`.  Admins."""
        request = operations_pb2.SetWorkerModeRequest(host=host, mode=MODES[mode])
        stubs = self._session.connection
        return stubs.call(stubs.operations.SetWorkerMode, request).worker

    def usage(self) -> list[operations_pb2.TeamUsage]:
        """Limits and what is used of them: every team for admins, their own for members."""
        stubs = self._session.connection
        return list(stubs.call(stubs.operations.ListUsage, operations_pb2.ListUsageRequest()).teams)

    def set_quota(self, team: str, limits: Mapping[str, int]) -> operations_pb2.TeamUsage:
        """Replace a team's limits by these fields of `Quota`; what is left out is lifted.  Admins."""
        request = operations_pb2.SetQuotaRequest(team=team, limits=operations_pb2.Quota(**limits))
        stubs = self._session.connection
        return stubs.call(stubs.operations.SetQuota, request).usage
