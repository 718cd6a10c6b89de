# SPDX-License-Identifier: Apache-2.0
"""AuditService."""

from __future__ import annotations

from collections.abc import AsyncIterator

from google.protobuf.timestamp_pb2 import Timestamp

from cloister.api.v1 import audit_pb2, audit_pb2_grpc
from cloister.evidence.entry import Subject
from cloister.evidence.fields import LAST_SECOND
from cloister_audit import query
from cloister_server.calls import Call, Context, current_call
from cloister_server.errors import InvalidFieldError, NotFoundError
from cloister_server.pages import read_size
from cloister_server.site import Site

MAX_POSITION = 2**53
"""Below it every position can be written into an entry, whose integers end there."""
_BATCH = 500
_FIRST_SECOND = -62_135_596_800


class AuditService(audit_pb2_grpc.AuditServiceServicer):
    """The log, to read and to prove.  The entry of a read is committed before its answer, and is part of it."""

    def __init__(self, site: Site) -> None:
        self._site = site

    async def GetCheckpoint(
        self, request: audit_pb2.GetCheckpointRequest, context: Context
    ) -> audit_pb2.GetCheckpointResponse:
        site = self._site
        await self._record(current_call(), "log.checkpoint")
        note, proof = await site.blocking.run(site.heads.consistent, request.since_size)
        return audit_pb2.GetCheckpointResponse(checkpoint=note, consistency_proof=proof)

    async def GetEntry(self, request: audit_pb2.GetEntryRequest, context: Context) -> audit_pb2.GetEntryResponse:
        site = self._site
        if not 0 <= request.index < MAX_POSITION:
            raise NotFoundError("entry")
        await self._record(current_call(), "log.read", index=request.index)
        proved = await site.blocking.run(site.heads.proved, request.index)
        return audit_pb2.GetEntryResponse(entry=proved.entry, inclusion_proof=proved.inclusion, checkpoint=proved.note)

    async def ListEntries(
        self, request: audit_pb2.ListEntriesRequest, context: Context
    ) -> audit_pb2.ListEntriesResponse:
        size, after = read_size(request.page), _position(request.page.page_token)
        wanted = query.Filter(
            action=request.action,
            actor=request.actor,
            object_id=request.object_id,
            since_us=_micros("since", request.since) if request.HasField("since") else None,
            until_us=_micros("until", request.until) if request.HasField("until") else None,
        )
        await self._record(current_call(), "log.read")
        found = await self._site.look(lambda connection: query.entries(connection, wanted, after, size + 1))
        token = str(found[size - 1][0]) if len(found) > size else ""
        return audit_pb2.ListEntriesResponse(entries=[body for _, body in found[:size]], next_page_token=token)

    async def ExportLog(
        self, request: audit_pb2.ExportLogRequest, context: Context
    ) -> AsyncIterator[audit_pb2.ExportLogResponse]:
        site, call = self._site, current_call()
        await self._record(call, "log.export")
        head, note = await site.blocking.run(site.heads.latest)
        yield audit_pb2.ExportLogResponse(checkpoint=note)
        for start in range(0, head.size, _BATCH):
            await call.recheck()
            end = min(start + _BATCH, head.size)
            bodies = await site.look(lambda connection: list(query.stream(connection, start, end)))  # noqa: B023
            for body in bodies:
                yield audit_pb2.ExportLogResponse(entry=body)

    async def _record(self, call: Call, action: str, **detail: int) -> None:
        subject = Subject("log", self._site.config.log_origin)
        await self._site.record("log.read", lambda tx: tx.record(call.event(action, subject, detail=detail)))


def _position(token: str) -> int:
    if not token:
        return -1
    if not token.isdecimal() or len(token) > 18:
        raise InvalidFieldError("page.page_token", "not a token that this server gave out")
    return int(token)


def _micros(field: str, stamp: Timestamp) -> int:
    # The fields of a Timestamp hold any number; what it may say goes from year 1 to 9999.
    if not _FIRST_SECOND <= stamp.seconds <= LAST_SECOND or not 0 <= stamp.nanos < 1_000_000_000:
        raise InvalidFieldError(field, "is no time between year 1 and 9999")
    return stamp.seconds * 1_000_000 + stamp.nanos // 1000
