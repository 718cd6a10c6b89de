# SPDX-License-Identifier: Apache-2.0
"""Reading and writing the descriptors that an agent hands over."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO, cast

from cloister.evidence.manifest import VerifiedObject
from cloister.sealed.errors import DigestMismatchError
from cloister_workers.keyagent.errors import DiskFullError, ReaderGoneError, RequestError, TransferError

_BLOCK = 1 << 20


@contextmanager
def transfers() -> Iterator[None]:
    """Turn an OSError of a descriptor into a TransferError."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise DiskFullError("no space is left for what was to be written") from None
        if error.errno == errno.EPIPE:
            raise ReaderGoneError("nobody reads the pipe any more") from None
        raise TransferError(f"a descriptor could not be read or written: {os.strerror(error.errno or 0)}") from None


class RangeReader:
    """The bytes of a regular file from its start, read without moving the position that the agent shares."""

    def __init__(self, fd: int, size: int) -> None:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise RequestError("the ciphertext is not in a regular file")
        self._fd = fd
        self._size = size
        self._position = 0

    def readinto(self, buffer: bytearray | memoryview, /) -> int:
        """Put the next bytes into `buffer`; 0 at the end."""
        view = memoryview(buffer)[: self._size - self._position]
        count = os.preadv(self._fd, [view], self._position) if len(view) else 0
        self._position += count
        return count


class Sink:
    """Writes everything that it is given; ends when its session ends."""

    def __init__(self, fd: int, closed: Callable[[], bool]) -> None:
        self._fd = fd
        self._closed = closed

    def write(self, data: bytes | memoryview, /) -> int:
        """Write all of `data`.  Raises OSError, TransferError once the session is closed."""
        view = memoryview(data)
        written = 0
        while written < len(view):
            if self._closed():
                raise TransferError("the session ended while it was written")
            written += os.write(self._fd, view[written : written + _BLOCK])
        return written

    def as_file(self) -> BinaryIO:
        """Typed as the file that `cloister.sealed` asks for, of which it uses `write` alone."""
        return cast("BinaryIO", self)


def check_ciphertext(fd: int, expected: VerifiedObject) -> None:
    """Check size and SHA-256 of a file against the signed trailer, before any key is used.

    Raises DigestMismatchError, RequestError, OSError.
    """
    trailer, what = expected.trailer, f"{expected.manifest.kind} {expected.manifest.id}"
    reader = RangeReader(fd, trailer.ciphertext_size)
    if (size := os.fstat(fd).st_size) != trailer.ciphertext_size:
        raise DigestMismatchError(f"{what}: {size} bytes of ciphertext, its trailer says {trailer.ciphertext_size}")
    sha256, block = hashlib.sha256(), memoryview(bytearray(_BLOCK))
    while count := reader.readinto(block):
        sha256.update(block[:count])
    if sha256.hexdigest() != trailer.ciphertext_sha256:
        raise DigestMismatchError(f"{what}: the ciphertext is not the one that its trailer signs")
