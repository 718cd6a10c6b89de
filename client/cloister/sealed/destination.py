# SPDX-License-Identifier: Apache-2.0
"""A folder that receives the files of a bundle: all of them, or none."""

import os
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from cloister.sealed.errors import DestinationError

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW


class Destination:
    """Creates files below a folder through its descriptor: nothing can be swapped for a link meanwhile.

    Context manager; everything created is removed at the end unless `keep` was called.
    Names are those that `bundle.check_name` lets pass.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._path = Path(folder)
        self._created: list[tuple[str, bool]] = []
        self._kept = False
        try:
            self._root = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise DestinationError(f"destination {self._path}: {error.strerror}; name an existing folder") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if not self._kept:
                self._remove()
        finally:
            os.close(self._root)

    def keep(self) -> None:
        """Let what was created stay."""
        self._kept = True

    def create(self, name: str) -> BinaryIO:
        """A new file, and its sub-folder where it has one; raises DestinationError if the name is taken."""
        folder, _, last = name.rpartition("/")
        try:
            if not folder:
                return self._open(last, self._root, name)
            self._make_folder(folder)
            descriptor = os.open(folder, _FOLDER, dir_fd=self._root)
            try:
                return self._open(last, descriptor, name)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise DestinationError(
                f"destination {self._path}: cannot create {name}: {error.strerror}; use an empty folder"
            ) from None

    def _open(self, last: str, folder: int, name: str) -> BinaryIO:
        descriptor = os.open(last, _NEW_FILE, 0o644, dir_fd=folder)
        self._created.append((name, False))
        return os.fdopen(descriptor, "wb")

    def _make_folder(self, folder: str) -> None:
        try:
            os.mkdir(folder, 0o755, dir_fd=self._root)
        except FileExistsError:
            return
        self._created.append((folder, True))

    def _remove(self) -> None:
        for name, is_folder in reversed(self._created):
            if is_folder:
                os.rmdir(name, dir_fd=self._root)
            else:
                os.unlink(name, dir_fd=self._root)
