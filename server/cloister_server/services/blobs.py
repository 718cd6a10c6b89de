# SPDX-License-Identifier: Apache-2.0
"""BlobService: the only place where ciphertext passes through."""

from __future__ import annotations

from collections.abc import AsyncIterator

from cloister.api.v1 import blobs_pb2, blobs_pb2_grpc
from cloister.evidence.entry import Subject
from cloister_server.calls import Call, Context, current_call
from cloister_server.database.rows import ObjectRow
from cloister_server.database.unit_of_work import Transaction
from cloister_server.errors import InvalidFieldError
from cloister_server.registry import access, objects
from cloister_server.site import Site
from cloister_server.store import SYNC_BYTES

MAX_WRITE = 1 << 20
MESSAGE_BYTES = 256 * 1024
_READ_AHEAD = 4 * MESSAGE_BYTES
_RECHECK_BYTES = 64 << 20
"""On a long stream the caller is looked up in the roster again after so many bytes."""


class BlobService(blobs_pb2_grpc.BlobServiceServicer):
    """Moves ciphertext."""

    def __init__(self, site: Site) -> None:
        self._site = site

    async def GetUpload(self, request: blobs_pb2.GetUploadRequest, context: Context) -> blobs_pb2.GetUploadResponse:
        call, site = current_call(), self._site

        def work(tx: Transaction) -> ObjectRow:
            row = access.watchable(tx.connection, call, request.object_id)
            tx.record(call.event("upload.read", Subject(access.subject_kind(row), row.id)))
            return row

        row = await site.record("upload.read", work)
        committed = await site.blocking.run(site.store.committed, objects.declared(row))
        return blobs_pb2.GetUploadResponse(committed_size=committed, size=row.size, complete=row.state == objects.READY)

    async def WriteBlob(
        self, request_iterator: AsyncIterator[blobs_pb2.WriteBlobRequest], context: Context
    ) -> blobs_pb2.WriteBlobResponse:
        call, site = current_call(), self._site
        row: ObjectRow | None = None
        attempt = unsynced = since_check = written = 0
        async for message in request_iterator:
            if row is None:
                attempt = message.attempt
                row = await site.blocking.run(site.uploads.begin, call, message.object_id, attempt)
            _check_message(message, row)
            unsynced += len(message.data)
            since_check += len(message.data)
            sync = unsynced >= SYNC_BYTES
            written = await site.blocking.run(site.uploads.append, row, message.offset, message.data, sync=sync)
            unsynced = 0 if sync else unsynced
            if since_check >= _RECHECK_BYTES:
                since_check = 0
                await call.recheck()
                await site.blocking.run(site.uploads.check, call, row.id, attempt)
        if row is None:
            raise InvalidFieldError("object_id", "the first message names the object")
        complete = await site.blocking.run(site.uploads.finish, call, row, attempt)
        site.notifier.notify()
        committed = row.size if complete else written
        return blobs_pb2.WriteBlobResponse(committed_size=committed, complete=complete)

    async def ReadBlob(
        self, request: blobs_pb2.ReadBlobRequest, context: Context
    ) -> AsyncIterator[blobs_pb2.ReadBlobResponse]:
        call, site = current_call(), self._site
        row = await site.record("blob.read", lambda tx: _begin_read(tx, call, request))
        declared = objects.declared(row)
        offset = request.offset
        since_check = 0
        while block := await site.blocking.run(site.store.read, declared, offset, _READ_AHEAD):
            for start in range(0, len(block), MESSAGE_BYTES):
                yield blobs_pb2.ReadBlobResponse(data=block[start : start + MESSAGE_BYTES])
            offset += len(block)
            since_check += len(block)
            if since_check >= _RECHECK_BYTES:
                since_check = 0
                await call.recheck()
                await site.look(lambda connection: access.readable(connection, call, row.id))


def _begin_read(tx: Transaction, call: Call, request: blobs_pb2.ReadBlobRequest) -> ObjectRow:
    row = access.readable(tx.connection, call, request.object_id)
    if not 0 <= request.offset <= row.size:
        raise InvalidFieldError("offset", f"{request.offset} is not between 0 and {row.size}")
    detail = {"offset": request.offset}
    subject = Subject(access.subject_kind(row), row.id, row.ciphertext_sha256)
    tx.record(call.event("blob.read", subject, detail=detail))
    return row


def _check_message(message: blobs_pb2.WriteBlobRequest, row: ObjectRow) -> None:
    if message.object_id and message.object_id != row.id:
        raise InvalidFieldError("object_id", "one stream carries one object")
    if len(message.data) > MAX_WRITE:
        raise InvalidFieldError("data", f"{len(message.data)} bytes are more than {MAX_WRITE}")
