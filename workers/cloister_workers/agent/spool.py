# SPDX-License-Identifier: Apache-2.0
"""The agent's working files: one folder for each attempt, gone after it; leftovers of a crash go at the next start."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from cloister.evidence.fields import IDENTIFIER
from cloister_workers.agent.errors import HostFault, JobFault

_FULL = (errno.ENOSPC, errno.EDQUOT)


class MakeRoom(Protocol):
    """Who gives space up for an attempt."""

    def __call__(self, wanted: int) -> None:
        """Remove what can be spared until `wanted` bytes are free on the spool's file system, or nothing can be."""


def spare_nothing(wanted: int) -> None:
    """Nobody gives space up."""


def free_bytes(folder: Path) -> int:
    """What this user may still write to the folder's file system."""
    room = os.statvfs(folder)
    return room.f_bavail * room.f_frsize


class Spool:
    """The folder below which attempts work."""

    def __init__(self, folder: Path, reserve_bytes: int, make_room: MakeRoom = spare_nothing) -> None:
        self._folder = folder
        self._reserve = reserve_bytes
        self._make_room = make_room

    def clear(self) -> int:
        """Remove what earlier processes left; returns how many attempts it was."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        leftovers = list(self._folder.iterdir())
        for path in leftovers:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        return len(leftovers)

    @contextmanager
    def attempt(self, work_id: str, attempt: int) -> Iterator[Path]:
        """A folder for one attempt.  Raises JobFault for an id that is no identifier: it becomes a folder's name."""
        if not IDENTIFIER.fullmatch(work_id):
            raise JobFault("EVIDENCE_REFUSED", "the lease's id is not an identifier (BAD_FORMAT); nothing was opened")
        folder = self._folder / f"{work_id}.{attempt}"
        with disk_full_is_our_fault():
            folder.mkdir(mode=0o700)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def check_space(self, size: int) -> None:
        """Raise HostFault unless `size` bytes fit and the reserve stays, after what can be spared has gone."""
        wanted = size + self._reserve
        if free_bytes(self._folder) < wanted:
            self._make_room(wanted)
            if free_bytes(self._folder) < wanted:
                raise disk_full()


def disk_full() -> HostFault:
    """What a full disk is for an attempt."""
    return HostFault("DISK_FULL", "the worker host's disk is full; its administrator must free space")


@contextmanager
def disk_full_is_our_fault() -> Iterator[None]:
    """Turn "no space left" into a HostFault."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise disk_full() from None
        raise
