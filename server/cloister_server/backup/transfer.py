# SPDX-License-Identifier: Apache-2.0
"""Copying files so that a name stands for complete, verified bytes or does not exist.

Crash order: (1) the bytes go to a temporary name beside the target while their digest is computed; (2) they are
synced and the digest compared; (3) the file is renamed and its folder synced.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from cloister.files import sync_folder, synced_digest
from cloister_server.backup.manifest import StoredFile
from cloister_server.errors import BackupError

PARTIAL = ".partial"
_READ_BYTES = 1 << 20
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def naming_full_disks(folder: Path) -> Iterator[None]:
    """Turn a full or broken disk into a BackupError that names the folder."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise BackupError(f"the disk of {folder} is full; free space or name another folder") from error
        raise BackupError(f"{error.filename or folder}: {error.strerror or type(error).__name__}") from error


def copy_verified(source: Path, target: Path, sha256: str) -> int:
    """Copy one file; return its size.

    Raises FileNotFoundError where the source is gone, BackupError where its bytes have another digest.
    """
    temporary = target.with_name(target.name + PARTIAL)
    try:
        with source.open("rb") as reader, _new_file(temporary) as writer:
            digest, size = _copy(reader, writer)
            writer.flush()
            os.fsync(writer.fileno())
        _check_digest(source, digest, sha256)
        temporary.rename(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(target.parent)
    return size


def write_synced(path: Path, data: bytes) -> StoredFile:
    """Write a small file and sync it."""
    with _new_file(path) as writer:
        writer.write(data)
        writer.flush()
        os.fsync(writer.fileno())
    return StoredFile(path.name, hashlib.sha256(data).hexdigest(), len(data))


def measure(path: Path) -> StoredFile:
    """Digest and size of a file, after syncing it."""
    return StoredFile(path.name, *synced_digest(path))


def _check_digest(source: Path, found: str, wanted: str) -> None:
    if found != wanted:
        raise BackupError(f"{source} is damaged: its bytes do not have the digest {wanted}")


def _new_file(path: Path) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600), "wb")


def _copy(reader: BinaryIO, writer: BinaryIO) -> tuple[str, int]:
    digest = hashlib.sha256()
    size = 0
    while block := reader.read(_READ_BYTES):
        digest.update(block)
        writer.write(block)
        size += len(block)
    return digest.hexdigest(), size
