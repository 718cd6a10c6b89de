# SPDX-License-Identifier: Apache-2.0
"""Base models in plaintext on this host's own disk, named by the digest of their file list.

A folder appears complete or not at all: unpacked beside, to disk, renamed.  It is readable for all users, because
the sandbox's user is another; its parent folder is not, so it is reached through the sandbox's own mount only.
Models stay as long as there is room; then those go first that were used longest ago.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cloister.sealed.bundle import read_bundle
from cloister.sealed.errors import SealedError
from cloister.sealed.filelist import check_model_file, list_digest
from cloister_workers.agent.errors import HostFault, JobFault
from cloister_workers.agent.spool import disk_full_is_our_fault, free_bytes

_DIGEST = re.compile(r"[0-9a-f]{64}")
_PARTIAL = ".partial-"
_PIECE = 1 << 20


class ModelCache:
    """The folder of models."""

    def __init__(self, folder: Path, free: Callable[[Path], int] = free_bytes) -> None:
        self._folder = folder
        self._free = free
        self._held: set[str] = set()

    def clear_partial(self) -> None:
        """Remove what a crash left."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in self._folder.glob(f"{_PARTIAL}*"):
            shutil.rmtree(path)

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """What is found or added inside stays until the end."""
        try:
            yield
        finally:
            self._held.clear()

    def find(self, trailer_sha256: str) -> Path | None:
        """The folder of the model with this signed trailer, if it is here; it is in use now."""
        path = self._folder / trailer_sha256
        if not path.is_dir():
            return None
        self._held.add(trailer_sha256)
        os.utime(path)  # when it was used last, across restarts
        return path

    def make_room(self, wanted: int) -> None:
        """Remove models that are not in use, the longest unused first, until `wanted` bytes are free."""
        models = [path for path in self._folder.iterdir() if _DIGEST.fullmatch(path.name)]
        for path in sorted(models, key=lambda path: path.stat().st_mtime_ns):
            if self._free(self._folder) >= wanted:
                return
            if path.name not in self._held:
                # Half a model must never be found: renamed first, as one that is being unpacked.
                shutil.rmtree(path.rename(self._folder / f"{_PARTIAL}{path.name}"))

    def add(self, trailer_sha256: str, files_sha256: str, pour: Callable[[int], None]) -> Path:
        """Unpack what `pour(fd)` writes into a pipe, which it closes.  `pour` runs on another thread.

        Raises JobFault where the files are not those that the digest names, HostFault, or what `pour` raised.
        """
        if not _DIGEST.fullmatch(files_sha256):
            raise JobFault("MODEL_INVALID", "the base model's manifest does not name its files")
        partial = self._folder / f"{_PARTIAL}{os.urandom(8).hex()}"
        try:
            with disk_full_is_our_fault():
                partial.mkdir(mode=0o755)
                _check_files(self._unpack(partial, pour), files_sha256)
                _settle(partial)
                partial.rename(self._folder / trailer_sha256)
                _sync(self._folder)
                self._held.add(trailer_sha256)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        return self._folder / trailer_sha256

    @staticmethod
    def _unpack(folder: Path, pour: Callable[[int], None]) -> str:
        from concurrent.futures import ThreadPoolExecutor

        read_end, write_end = os.pipe()
        with ThreadPoolExecutor(max_workers=1) as pool:
            pouring = pool.submit(pour, write_end)
            failure: SealedError | None = None
            with os.fdopen(read_end, "rb") as stream:
                try:
                    files = read_bundle(stream, folder, allow=check_model_file)
                except SealedError as error:
                    failure = error
                    # Else the pipe would break, and look like the cause.
                    while stream.read(_PIECE):
                        continue
            # What went wrong on the way in explains a bad bundle, so it is raised first.
            pouring.result()
        if failure is not None:
            raise JobFault("MODEL_INVALID", f"the base model is not a bundle of model files ({failure.reason})")
        return list_digest(files)


def _check_files(found: str, wanted: str) -> None:
    if found != wanted:
        raise JobFault("MODEL_INVALID", "the base model holds other files than its manifest names")


def _settle(folder: Path) -> None:
    for path in sorted(folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
        _sync(path)
    folder.chmod(0o755)
    _sync(folder)


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    except OSError as error:
        raise HostFault(
            "DISK_FAULT", f"the worker host's disk does not take what is written (errno {error.errno})"
        ) from None
    finally:
        os.close(fd)
