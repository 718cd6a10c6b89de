# SPDX-License-Identifier: Apache-2.0
"""JobService."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

from cloister.api.v1 import jobs_pb2, jobs_pb2_grpc
from cloister_server.calls import Context, current_call
from cloister_server.errors import StoppingError
from cloister_server.pages import Page
from cloister_server.queue import debias, jobs, pausing, submit
from cloister_server.site import Site

POLL_SECONDS = 1.0
"""How often a waiting stream looks by itself: another control plane may have written."""


class JobService(jobs_pb2_grpc.JobServiceServicer):
    """Adaptation jobs of a team."""

    def __init__(self, site: Site) -> None:
        self._site = site

    async def CreateJob(self, request: jobs_pb2.CreateJobRequest, context: Context) -> jobs_pb2.CreateJobResponse:
        call, site = current_call(), self._site
        roster, now = site.rosters.valid(), site.clock()
        job = await site.change("job.submit", lambda tx: submit.submit(tx, call, request, roster, now))
        return jobs_pb2.CreateJobResponse(job=job)

    async def GetJob(self, request: jobs_pb2.GetJobRequest, context: Context) -> jobs_pb2.GetJobResponse:
        call = current_call()
        job = await self._site.record("job.read", lambda tx: jobs.get(tx, call, request.id))
        return jobs_pb2.GetJobResponse(job=job)

    async def ListJobs(self, request: jobs_pb2.ListJobsRequest, context: Context) -> jobs_pb2.ListJobsResponse:
        call, page = current_call(), Page.read(request.page)
        return await self._site.record("job.list", lambda tx: jobs.list_page(tx, call, page))

    async def CancelJob(self, request: jobs_pb2.CancelJobRequest, context: Context) -> jobs_pb2.CancelJobResponse:
        call = current_call()
        job = await self._site.change("job.cancel", lambda tx: jobs.cancel(tx, call, request.id))
        return jobs_pb2.CancelJobResponse(job=job)

    async def PauseJob(self, request: jobs_pb2.PauseJobRequest, context: Context) -> jobs_pb2.PauseJobResponse:
        call = current_call()
        job = await self._site.change("job.pause", lambda tx: pausing.pause(tx, call, request.id))
        return jobs_pb2.PauseJobResponse(job=job)

    async def ResumeJob(self, request: jobs_pb2.ResumeJobRequest, context: Context) -> jobs_pb2.ResumeJobResponse:
        call = current_call()
        job = await self._site.change("job.resume", lambda tx: pausing.resume(tx, call, request.id))
        return jobs_pb2.ResumeJobResponse(job=job)

    async def GetJobReport(
        self, request: jobs_pb2.GetJobReportRequest, context: Context
    ) -> jobs_pb2.GetJobReportResponse:
        call = current_call()
        return await self._site.record("report.read", lambda tx: debias.get(tx, call, request.id))

    async def WatchJob(
        self, request: jobs_pb2.WatchJobRequest, context: Context
    ) -> AsyncIterator[jobs_pb2.WatchJobResponse]:
        call, site = current_call(), self._site
        seen = max(request.after_seq, 0)
        await site.record("job.watch", lambda tx: jobs.begin_watch(tx, call, request.id, seen))
        beat = time.monotonic()
        while True:
            if site.notifier.stopping:
                raise StoppingError
            await call.recheck()
            after, due = seen, time.monotonic() - beat >= site.config.heartbeat_seconds
            news = await site.look(lambda connection: jobs.news(connection, call, request.id, after, with_job=due))  # noqa: B023
            for event in news.events:
                yield jobs_pb2.WatchJobResponse(event=event)
                seen = event.seq
            if news.is_last:
                yield jobs_pb2.WatchJobResponse(terminal=news.job)
                return
            if news.events:
                beat = time.monotonic()
                continue
            if due:
                yield jobs_pb2.WatchJobResponse(heartbeat=news.job)
                beat = time.monotonic()
            await site.notifier.wait(min(POLL_SECONDS, site.config.heartbeat_seconds))
