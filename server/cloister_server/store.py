# SPDX-License-Identifier: Apache-2.0
"""Blobs on disk: immutable ciphertext, named by SHA-256 and by the object that declared it.

    partial/<object id>                    an upload that is not finished
    blobs/<2 hex>/<64 hex>.<object id>     a complete blob
    locks/<number>                         held while a partial file is written or completed

Several control planes may share the directory, so the locks are files: flock excludes threads and processes alike.

Threat: a member who declares another team's digest must not get at that team's blob, nor learn that it exists.
So a blob belongs to one object, and every object is uploaded by those who declared it.

Crash order of an upload: (1) bytes are appended to the partial file and synced every few MiB; (2) at the full
size the file is synced and its SHA-256 compared with the declared one; (3) it is renamed to its digest and both
folders are synced; (4) the database records it as READY, with its audit entry.  Readers go by the database, so
nothing half-written can be seen.  A crash before (3) leaves a partial file that the client goes on with; between
(3) and (4) it leaves a complete blob that nobody may read, which recovery or the client's next call records.
"""

from __future__ import annotations

import errno
import fcntl
import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from cloister.files import sync_folder, synced_digest
from cloister_server.crashpoints import BLOB_RENAMED, BLOB_SYNCED, crash_here
from cloister_server.errors import DigestMismatchError, NotFoundError, OffsetMismatchError, StorageExhaustedError

SYNC_BYTES = 8 << 20
"""At most so many bytes are lost to a power cut."""
_READ_BYTES = 1 << 20
_STRIPES = 64


def free_bytes(directory: Path) -> int:
    """Bytes that an unprivileged process may still write."""
    usage = os.statvfs(directory)
    return usage.f_bavail * usage.f_frsize


@dataclass(frozen=True)
class Declared:
    """What an object said that its blob would be."""

    object_id: str
    sha256: str
    size: int


class Store:
    """The blob store of one directory."""

    def __init__(self, directory: Path, reserve_bytes: int, free: Callable[[Path], int] = free_bytes) -> None:
        self._directory = directory
        self._reserve = reserve_bytes
        self._free = free
        for name in ("partial", "blobs", "locks"):
            (directory / name).mkdir(mode=0o700, parents=True, exist_ok=True)

    def has_room(self, size: int = 0) -> bool:
        """Whether `size` more bytes leave the reserve alone."""
        return self.free_bytes() - size >= self._reserve

    def free_bytes(self) -> int:
        """What the file system can still take, the reserve included."""
        return self._free(self._directory)

    def check_room(self, size: int) -> None:
        """Raises StorageExhaustedError."""
        if not self.has_room(size):
            raise StorageExhaustedError(
                f"the store has no room for {size} more bytes above its reserve; an administrator must free space"
            )

    def committed(self, declared: Declared) -> int:
        """Bytes on stable storage; never less than an earlier answer."""
        if self.is_complete(declared):
            return declared.size
        with self._exclusive(declared.object_id), suppress(FileNotFoundError):
            descriptor = os.open(self._partial(declared.object_id), os.O_RDWR)
            try:
                os.fsync(descriptor)
                return os.fstat(descriptor).st_size
            finally:
                os.close(descriptor)
        return 0

    def append(self, declared: Declared, offset: int, data: bytes, *, sync: bool) -> int:
        """Add bytes to the partial file; return its size.

        Raises OffsetMismatchError, StorageExhaustedError.  What was written before stays.
        """
        with self._exclusive(declared.object_id):
            if self.is_complete(declared):
                if offset == declared.size and not data:
                    return declared.size
                raise OffsetMismatchError("the blob is complete; ask for committed_size", committed=str(declared.size))
            descriptor = os.open(self._partial(declared.object_id), os.O_RDWR | os.O_CREAT, 0o600)
            try:
                return _append(descriptor, declared, offset, data, sync=sync)
            except OSError as error:
                raise _full(error) from error
            finally:
                os.close(descriptor)

    def complete(self, declared: Declared) -> None:
        """Verify the digest of a full-size upload and rename it.  Doing it again changes nothing.

        Raises DigestMismatchError (the upload is gone then), OffsetMismatchError (not at full size).
        """
        with self._exclusive(declared.object_id):
            if self.is_complete(declared):
                return
            partial = self._partial(declared.object_id)
            try:
                digest, size = synced_digest(partial)
            except FileNotFoundError:
                raise OffsetMismatchError("nothing was uploaded yet", committed="0") from None
            if size < declared.size:
                raise OffsetMismatchError(f"{size} of {declared.size} bytes were uploaded", committed=str(size))
            if digest != declared.sha256 or size != declared.size:
                partial.unlink()
                raise DigestMismatchError("the uploaded bytes are not the ones that the trailer names; send them again")
            crash_here(BLOB_SYNCED)
            final = self.path(declared)
            if not final.parent.exists():
                final.parent.mkdir(mode=0o700)
                sync_folder(final.parent.parent)
            partial.rename(final)
            sync_folder(final.parent)
            sync_folder(partial.parent)
            crash_here(BLOB_RENAMED)

    def is_complete(self, declared: Declared) -> bool:
        """Whether the blob is there under its digest, in full size."""
        try:
            return self.path(declared).stat().st_size == declared.size
        except FileNotFoundError:
            return False

    def read(self, declared: Declared, offset: int, size: int) -> bytes:
        """Bytes of a complete blob; empty at its end.  Raises NotFoundError."""
        try:
            with self.path(declared).open("rb") as file:
                file.seek(offset)
                return file.read(size)
        except FileNotFoundError:
            raise NotFoundError("blob") from None

    def verify(self, declared: Declared) -> bool:
        """Read a complete blob and compare its digest."""
        digest, size = synced_digest(self.path(declared))
        return (digest, size) == (declared.sha256, declared.size)

    def discard_partial(self, object_id: str) -> None:
        self._partial(object_id).unlink(missing_ok=True)

    def discard_blob(self, declared: Declared) -> None:
        self.path(declared).unlink(missing_ok=True)

    def discard(self, blob: Declared) -> None:
        """What there is of it, complete or not."""
        self.discard_partial(blob.object_id)
        self.discard_blob(blob)

    def partials(self) -> Iterator[str]:
        """Object ids with an unfinished upload."""
        yield from sorted(path.name for path in (self._directory / "partial").iterdir())

    def blobs(self) -> Iterator[Declared]:
        """The complete blobs."""
        for path in sorted((self._directory / "blobs").glob("??/*")):
            sha256, _, object_id = path.name.partition(".")
            yield Declared(object_id, sha256, path.stat().st_size)

    def path(self, declared: Declared) -> Path:
        name = f"{declared.sha256}.{declared.object_id}"
        return self._directory / "blobs" / declared.sha256[:2] / name

    def _partial(self, object_id: str) -> Path:
        return self._directory / "partial" / object_id

    @contextmanager
    def _exclusive(self, object_id: str) -> Iterator[None]:
        """One writer for each upload: two streams of one object cannot interleave inside an append.

        Nor can one write into a file that another has verified and is about to rename.
        """
        stripe = zlib.crc32(object_id.encode("utf-8")) % _STRIPES  # the same in every process, which hash() is not
        descriptor = os.open(self._directory / "locks" / f"{stripe:02d}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _append(descriptor: int, declared: Declared, offset: int, data: bytes, *, sync: bool) -> int:
    size = os.fstat(descriptor).st_size
    if offset != size:
        raise OffsetMismatchError(
            f"the data start at {offset}, {size} bytes were received; ask for committed_size", committed=str(size)
        )
    if size + len(data) > declared.size:
        raise OffsetMismatchError(f"the upload is longer than the declared {declared.size} bytes", committed=str(size))
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, size)
        size += written
        view = view[written:]
    if sync:
        os.fsync(descriptor)
    return size


def _full(error: OSError) -> Exception:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return StorageExhaustedError("the disk of the store is full; an administrator must free space")
    return error
