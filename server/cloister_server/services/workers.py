# SPDX-License-Identifier: Apache-2.0
"""WorkerService."""

from __future__ import annotations

import time

from cloister.api.v1 import workers_pb2, workers_pb2_grpc
from cloister.evidence.roster import Roster
from cloister.wire import statement_to_proto
from cloister_server.calls import Call, Context, current_call
from cloister_server.database.rows import JobRow
from cloister_server.database.unit_of_work import Transaction
from cloister_server.errors import InvalidFieldError, StoppingError
from cloister_server.queue import artifacts, finish, handover, heartbeat, lease, openings, reports
from cloister_server.registry import releases
from cloister_server.site import Site

MAX_WAIT_SECONDS = 30
POLL_SECONDS = 1.0


class WorkerService(workers_pb2_grpc.WorkerServiceServicer):
    """What a worker host's agent calls."""

    def __init__(self, site: Site) -> None:
        self._site = site

    async def LeaseWork(self, request: workers_pb2.LeaseWorkRequest, context: Context) -> workers_pb2.LeaseWorkResponse:
        call, site = current_call(), self._site
        if not 0 <= request.wait_seconds <= MAX_WAIT_SECONDS:
            raise InvalidFieldError("wait_seconds", f"{request.wait_seconds} is not between 0 and {MAX_WAIT_SECONDS}")
        end = time.monotonic() + request.wait_seconds
        while True:
            if site.notifier.stopping:
                raise StoppingError  # before anything is leased: its holder would look for this control plane in vain
            found = await self._try(call)
            left = end - time.monotonic()
            if found.WhichOneof("work") or left <= 0:
                return found
            await site.notifier.wait(min(left, POLL_SECONDS))
            await call.recheck()

    async def _try(self, call: Call) -> workers_pb2.LeaseWorkResponse:
        site = self._site
        in_force, host = await site.blocking.run(site.rosters.newest), call.principal
        answer = workers_pb2.LeaseWorkResponse(
            lease_seconds=site.config.lease_seconds, roster=statement_to_proto(in_force.statement)
        )
        if await site.look(lambda connection: lease.work_may_wait(connection, host.id, host.pool)):
            await site.record("job.lease", lambda tx: self._take(tx, call, in_force.roster, answer))
            if answer.WhichOneof("work"):
                site.notifier.notify()
        return answer

    def _take(self, tx: Transaction, call: Call, roster: Roster, answer: workers_pb2.LeaseWorkResponse) -> None:
        answer.ClearField("work")
        taken = lease.take(tx, call, roster, self._site.config.lease_seconds)
        if isinstance(taken, JobRow):
            answer.job.CopyFrom(handover.job_lease(tx.connection, taken, roster))
        elif taken is not None:
            answer.release.CopyFrom(handover.release_lease(tx.connection, taken, roster))

    async def Heartbeat(self, request: workers_pb2.HeartbeatRequest, context: Context) -> workers_pb2.HeartbeatResponse:
        call, site = current_call(), self._site
        seconds = site.config.lease_seconds
        directive = await site.record(
            "heartbeat", lambda tx: heartbeat.keep(tx, call, request.work_id, request.attempt, seconds)
        )
        return workers_pb2.HeartbeatResponse(directive=directive)

    async def RequestOpening(
        self, request: workers_pb2.RequestOpeningRequest, context: Context
    ) -> workers_pb2.RequestOpeningResponse:
        call, site = current_call(), self._site
        work_id, attempt = request.work_id, request.attempt
        await site.change("job.open", lambda tx: openings.request(tx, call, work_id, attempt))
        index = await site.look(lambda connection: openings.position(connection, work_id, attempt))
        proved = await site.blocking.run(site.heads.proved, index, request.since_size)
        return workers_pb2.RequestOpeningResponse(
            entry=proved.entry,
            index=index,
            inclusion_proof=proved.inclusion,
            checkpoint=proved.note,
            consistency_proof=proved.consistency,
            roster=statement_to_proto((await site.blocking.run(site.rosters.newest)).statement),
        )

    async def ReportEvents(
        self, request: workers_pb2.ReportEventsRequest, context: Context
    ) -> workers_pb2.ReportEventsResponse:
        call = current_call()
        await self._site.change("job.report", lambda tx: reports.report(tx, call, request))
        return workers_pb2.ReportEventsResponse()

    async def CreateArtifact(
        self, request: workers_pb2.CreateArtifactRequest, context: Context
    ) -> workers_pb2.CreateArtifactResponse:
        call, site = current_call(), self._site
        roster, now = site.rosters.valid(), site.clock()
        object_id = await site.change("artifact.create", lambda tx: artifacts.create(tx, call, request, roster, now))
        return workers_pb2.CreateArtifactResponse(object_id=object_id)

    async def FinishJob(self, request: workers_pb2.FinishJobRequest, context: Context) -> workers_pb2.FinishJobResponse:
        call = current_call()
        state = await self._site.change("job.finish", lambda tx: finish.finish(tx, call, request))
        return workers_pb2.FinishJobResponse(state=state)

    async def FinishRelease(
        self, request: workers_pb2.FinishReleaseRequest, context: Context
    ) -> workers_pb2.FinishReleaseResponse:
        call, site = current_call(), self._site
        roster, now = site.rosters.valid(), site.clock()
        state = await site.change("release.finish", lambda tx: releases.finish(tx, call, request, roster, now))
        return workers_pb2.FinishReleaseResponse(state=state)
