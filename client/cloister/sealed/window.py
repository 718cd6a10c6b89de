# SPDX-License-Identifier: Apache-2.0
"""A part of an open file, as a stream of its own."""

from typing import BinaryIO, Protocol

from cloister.sealed.errors import ContainerTruncatedError

_BLOCK = 1 << 20


class ByteSource(Protocol):
    """Whatever fills a buffer: files, sockets' files, `FileWindow`."""

    def readinto(self, buffer: bytearray | memoryview, /) -> int | None:
        """Put bytes into `buffer`; 0 or None at the end."""
        ...


class ByteReader(Protocol):
    """Whatever yields its bytes in order: buffered files and pipes, `PayloadReader`."""

    def read(self, count: int, /) -> bytes:
        """The next `count` bytes; fewer only at the end."""
        ...


class FileWindow:
    """The `size` bytes at `offset` of a seekable file, read once from first to last."""

    def __init__(self, file: BinaryIO, offset: int, size: int) -> None:
        file.seek(offset)
        self._file = file
        self._left = size

    def readinto(self, buffer: bytearray | memoryview, /) -> int:
        """Put the next bytes into `buffer`; returns 0 at the end of the window or of the file."""
        view = memoryview(buffer)[: self._left]
        count = self._file.readinto(view) or 0  # type: ignore[attr-defined]
        self._left -= count
        return int(count)


def copy_range(source: BinaryIO, offset: int, size: int, sink: BinaryIO) -> None:
    """Copy `size` bytes at `offset`; raises ContainerTruncatedError if the file shrank meanwhile."""
    window = FileWindow(source, offset, size)
    block = memoryview(bytearray(_BLOCK))
    copied = 0
    while count := window.readinto(block):
        sink.write(block[:count])
        copied += count
    if copied != size:
        raise ContainerTruncatedError(f"container: it ended after {copied} of {size} payload bytes while it was copied")
