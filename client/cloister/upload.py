# SPDX-License-Identifier: Apache-2.0
"""Blobs on their way to the store and back; a broken transfer continues where it stands."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import grpc

from cloister.api.v1 import blobs_pb2
from cloister.channel import ATTEMPTS, Connection, messages, translate
from cloister.errors import CloisterError, ConnectError, StorageError, UploadError
from cloister.reasons import OFFSET_MISMATCH

PIECE = 256 * 1024
_BYTES_PER_SECOND = 256 * 1024
"""Slowest transfer that a stream's deadline allows for."""

Progress = Callable[[int, int], None]
"""Called with the bytes done and the bytes in all."""


def no_progress(_done: int, _total: int) -> None:
    """Report nothing."""


def send_blob(
    connection: Connection, object_id: str, path: Path, start: int, size: int, progress: Progress = no_progress
) -> None:
    """Send the `size` bytes at `start` of a file as the blob of an object, from where the store stands.

    Raises UploadError where the bytes are refused, ConnectError when the store stays away.
    """
    failures, before = 0, -1
    while True:
        request = blobs_pb2.GetUploadRequest(object_id=object_id)
        state = connection.call(connection.blobs.GetUpload, request)
        progress(state.committed_size, size)
        if state.complete:
            return
        if state.size != size:
            raise UploadError(f"the store expects {state.size} bytes, this file has {size}; push it anew")
        # Progress resets the count: a long upload over a bad line is not given up.
        failures = 0 if state.committed_size > before else failures + 1
        before = state.committed_size
        if failures >= ATTEMPTS:
            raise ConnectError(f"the upload stands at {before} of {size} bytes; run the command again to continue")
        try:
            _send(connection, object_id, path, start, (state.committed_size, size), progress)
        except CloisterError as error:
            if not isinstance(error, ConnectError) and error.reason != OFFSET_MISMATCH:
                raise
            connection.back_off(failures)


def _send(
    connection: Connection, object_id: str, path: Path, start: int, span: tuple[int, int], progress: Progress
) -> None:
    committed, size = span
    with path.open("rb") as file:
        file.seek(start + committed)
        pieces = _pieces(file, object_id, committed, size, progress)
        try:
            connection.blobs.WriteBlob(pieces, timeout=_seconds(size - committed))
        except grpc.RpcError as error:
            raise translate(error) from None


def _pieces(
    file: BinaryIO, object_id: str, offset: int, size: int, progress: Progress
) -> Iterator[blobs_pb2.WriteBlobRequest]:
    yield blobs_pb2.WriteBlobRequest(object_id=object_id, offset=offset)
    while offset < size:
        data = file.read(min(PIECE, size - offset))
        if not data:
            return
        yield blobs_pb2.WriteBlobRequest(offset=offset, data=data)
        offset += len(data)
        progress(offset, size)


def fetch_blob(connection: Connection, object_id: str, path: Path, size: int, progress: Progress = no_progress) -> None:
    """Read a blob into a file, continuing what the file holds already.  The caller checks its digest.

    Raises UploadError where the store sends more than `size` bytes, ConnectError when it stays away.
    """
    failures = 0
    with _appending(path) as file:
        while (have := file.tell()) < size:
            try:
                _fetch(connection, object_id, file, size, progress)
            except ConnectError:
                failures = 0 if file.tell() > have else failures + 1
                if failures >= ATTEMPTS:
                    raise
                connection.back_off(failures)
                continue
            if file.tell() == have:
                raise UploadError(f"the store has only {have} of {size} bytes of {object_id}; tell its administrator")
        file.flush()
        os.fsync(file.fileno())


def _fetch(connection: Connection, object_id: str, file: BinaryIO, size: int, progress: Progress) -> None:
    have = file.tell()
    request = blobs_pb2.ReadBlobRequest(object_id=object_id, offset=have)
    stream = connection.blobs.ReadBlob(request, timeout=_seconds(size - have))
    for message in messages(stream):
        have += len(message.data)
        if have > size:
            raise UploadError(f"the store sends more than the {size} bytes of {object_id}; nothing was opened")
        try:
            file.write(message.data)
        except OSError as error:
            raise StorageError(f"cannot write {file.name}: {error.strerror}; free space and run it again") from None
        progress(have, size)


def _appending(path: Path) -> BinaryIO:
    file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600), "r+b")
    file.seek(0, os.SEEK_END)
    return file


def _seconds(size: int) -> float:
    return 120.0 + size / _BYTES_PER_SECOND
