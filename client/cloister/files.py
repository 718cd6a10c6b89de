# SPDX-License-Identifier: Apache-2.0
"""Files that hold keys or state: complete or not there, readable by their owner alone."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from cloister.errors import HomeError, UsageError

_READ_BYTES = 1 << 20


def private_directory(path: Path) -> Path:
    """Make a directory of mode 0700 where there is none."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def create_private(path: Path, data: bytes) -> None:
    """A new file of mode 0600.  Raises HomeError where one exists: a key is never overwritten."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except FileExistsError:
        raise HomeError(f"{path} exists already; move it away first if you mean to replace it") from None
    with os.fdopen(descriptor, "wb") as file:
        _to_disk(file.fileno(), data)


def replace_private(path: Path, data: bytes) -> None:
    """Replace a file of mode 0600 at once: a crash leaves the old content or the new one."""
    temporary = path.with_name(f".{path.name}.{os.urandom(6).hex()}.partial")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            _to_disk(file.fileno(), data)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def give_to_owner(folder: Path) -> None:
    """As root, hand all in a folder to the folder's owner, for whose service it was made."""
    for path in folder.iterdir():
        give_like(folder, path)


def give_like(example: Path, path: Path) -> None:
    """As root, hand a file, or a folder with all in it, to the owner of another; others cannot, and need not."""
    if os.geteuid() != 0:
        return
    owner = example.stat()
    for found in (path, *path.rglob("*")):
        os.chown(found, owner.st_uid, owner.st_gid, follow_symlinks=False)


@contextmanager
def new_output(path: Path) -> Iterator[BinaryIO]:
    """A file of mode 0600 that gets its name at the end, or vanishes on any error.

    Raises UsageError where the name is taken.
    """
    if path.exists():
        raise UsageError(f"{path} exists already; name a new file")
    temporary = path.with_name(f".{path.name}.{os.urandom(6).hex()}.partial")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    # Else a crash could take the name away again after the caller was told that the file is there.
    sync_folder(path.parent)


def _to_disk(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
    os.fsync(descriptor)


def sync_folder(folder: Path) -> None:
    """Make what was created, renamed or removed inside a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def synced_digest(path: Path) -> tuple[str, int]:
    """SHA-256 (hex) and size in bytes of a file that is on the disk when this returns."""
    digest = hashlib.sha256()
    size = 0
    with path.open("rb") as file:
        os.fsync(file.fileno())
        while block := file.read(_READ_BYTES):
            digest.update(block)
            size += len(block)
    return digest.hexdigest(), size
