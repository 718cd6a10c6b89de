# SPDX-License-Identifier: Apache-2.0
"""Bundles: several files as one byte stream, in one canonical form (format: protos/ENVELOPE.md, section 6).

A bundle is a POSIX tar (ustar) of regular files in ascending order of names, all with mode 0644 and with
time and owner zero, ended by exactly two zero blocks; a file of 8 GiB or more has a pax record for its size.
So equal files give equal bytes, and every tar program can read a bundle.
The reader accepts that form only: it makes the header that must stand there and compares.
"""

import hashlib
import os
import re
import tarfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

from cloister.sealed.destination import Destination
from cloister.sealed.errors import (
    BundleError,
    BundleFormatError,
    BundleLimitError,
    SourceChangedError,
    UnsafeNameError,
)
from cloister.sealed.filelist import (
    MODEL_FILES,
    FileDigest,
    check_model_file,
    file_list,
    files_of,
    list_digest,
)
from cloister.sealed.window import ByteReader

__all__ = [
    "MODEL_FILES",
    "BundleLimits",
    "FileDigest",
    "check_model_file",
    "check_name",
    "file_list",
    "files_of",
    "list_digest",
    "read_bundle",
    "write_bundle",
]

BLOCK_SIZE = 512
END = bytes(2 * BLOCK_SIZE)
MAX_NAME_LENGTH = 99

_COPY_SIZE = 1 << 20
_SEGMENT = r"[A-Za-z0-9_][A-Za-z0-9._+@=-]*"
_SAFE_NAME = re.compile(rf"{_SEGMENT}(/{_SEGMENT})?")
_PAX_RECORD = re.compile(rb"[1-9][0-9] size=([1-9][0-9]{9,18})\n")
_USTAR_SIZE_LIMIT = 8**11

Source = str | os.PathLike[str] | bytes
"""A file's path, or its content."""


@dataclass(frozen=True, slots=True)
class BundleLimits:
    """What `read_bundle` accepts at most; sizes in bytes."""

    max_files: int = 1000
    max_file_size: int = 1 << 40
    max_total_size: int = 1 << 42


def check_name(name: str) -> None:
    """Raise UnsafeNameError unless `name` is one or two plain segments.

    Letters, digits and `._+@=-`, not beginning with a dot or dash: so no absolute path, no `..`, nothing
    hidden, and nothing that a shell, a terminal or another file system reads in its own way.
    """
    if len(name) > MAX_NAME_LENGTH or not _SAFE_NAME.fullmatch(name):
        raise UnsafeNameError(
            f"bundle: the file name {name[:MAX_NAME_LENGTH]!r} is refused; use at most one folder, letters, "
            f"digits and ._+@=-, no leading dot or dash, {MAX_NAME_LENGTH} characters at most"
        )


def write_bundle(files: Iterable[tuple[str, Source]], sink: BinaryIO) -> tuple[FileDigest, ...]:
    """Write the named files to `sink` in canonical form and return their digests.

    Raises UnsafeNameError for a name (also one given twice), SourceChangedError if a file changes meanwhile.
    """
    entries = sorted(files, key=lambda entry: entry[0])
    _check_names([name for name, _ in entries])
    digests: list[FileDigest] = []
    for name, source in entries:
        with _opened(source) as (file, size):
            sink.write(_header(name, size))
            digests.append(_copy(name, file, size, sink, SourceChangedError))
            if file.read(1):
                raise SourceChangedError(f"bundle: {name} grew while it was read; try again later")
            sink.write(bytes(-size % BLOCK_SIZE))
    sink.write(END)
    return tuple(digests)


def read_bundle(
    source: ByteReader,
    folder: str | os.PathLike[str],
    limits: BundleLimits = BundleLimits(),
    allow: Callable[[str], None] | None = None,
) -> tuple[FileDigest, ...]:
    """Unpack a bundle into `folder`, which must exist, and return the digests of its files.

    `allow(name)` may refuse a file by raising (for models: `filelist.check_model_file`).
    Nothing that exists is overwritten, no link is followed, and on any error the files written so far are removed.
    Raises BundleFormatError, UnsafeNameError, BundleLimitError, DestinationError, or what `allow` raises.
    """
    digests: list[FileDigest] = []
    total = 0
    with Destination(folder) as destination:
        for name, size in _entries(source):
            check_name(name)
            if digests and name <= digests[-1].name:
                raise BundleFormatError(f"bundle: {name} does not stand in ascending order")
            if allow is not None:
                allow(name)
            total += size
            if len(digests) >= limits.max_files:
                raise BundleLimitError(f"bundle: more than {limits.max_files} files")
            if size > limits.max_file_size or total > limits.max_total_size:
                raise BundleLimitError(f"bundle: {name} of {size} bytes is above the limits")
            with destination.create(name) as file:
                digests.append(_copy(name, source, size, file, BundleFormatError))
            padding = -size % BLOCK_SIZE
            if source.read(padding) != bytes(padding):
                raise BundleFormatError(f"bundle: the padding after {name} is not zero, or cut")
        if source.read(1):
            raise BundleFormatError("bundle: bytes follow its end")
        destination.keep()
    return tuple(digests)


def _entries(source: ByteReader) -> Iterator[tuple[str, int]]:
    """Name and size of each file; the caller reads the content between two steps."""
    while True:
        header = source.read(BLOCK_SIZE)
        if header == END[:BLOCK_SIZE]:
            if source.read(BLOCK_SIZE) != header:
                raise BundleFormatError("bundle: it does not end in exactly two zero blocks")
            return
        size = None
        if header[156:157] == b"x":
            record = source.read(BLOCK_SIZE)
            size = _pax_size(record)
            header += record + source.read(BLOCK_SIZE)
        block = header[-BLOCK_SIZE:]
        if len(header) % BLOCK_SIZE or not header:
            raise BundleFormatError("bundle: it ends inside a header, or without its end blocks")
        name = _name(block)
        size = _octal_size(block) if size is None else size
        if header != _header(name, size):
            raise BundleFormatError("bundle: a header is not in canonical form; make the bundle with cloister")
        yield name, size


def _header(name: str, size: int) -> bytes:
    """The header blocks of a file: one, or three where the size needs a pax record."""
    info = tarfile.TarInfo(name)
    info.size = size
    return info.tobuf(tarfile.PAX_FORMAT)


def _name(block: bytes) -> str:
    try:
        name = block[:100].rstrip(b"\0").decode("ascii")
    except UnicodeDecodeError:
        raise UnsafeNameError("bundle: a file name is not ASCII") from None
    check_name(name)
    return name


def _octal_size(block: bytes) -> int:
    if not re.fullmatch(rb"[0-7]{11}\0", block[124:136]):
        raise BundleFormatError("bundle: a file size is not an octal number")
    return int(block[124:135], 8)


def _pax_size(record: bytes) -> int:
    match = _PAX_RECORD.match(record)
    if match is None or int(match[1]) < _USTAR_SIZE_LIMIT:
        raise BundleFormatError("bundle: an extended header holds something other than the size of a large file")
    return int(match[1])


def _check_names(names: list[str]) -> None:
    for name in names:
        check_name(name)
    for name, following in pairwise(names):
        if name == following:
            raise UnsafeNameError(f"bundle: the file name {name} is given twice")


@contextmanager
def _opened(source: Source) -> Iterator[tuple[ByteReader, int]]:
    if isinstance(source, bytes):
        yield BytesIO(source), len(source)
        return
    with Path(source).open("rb") as file:
        yield file, os.fstat(file.fileno()).st_size


def _copy(name: str, source: ByteReader, size: int, sink: BinaryIO, early: type[BundleError]) -> FileDigest:
    """Copy exactly `size` bytes; raises `early` if `source` ends before."""
    sha256 = hashlib.sha256()
    left = size
    while left and (data := source.read(min(left, _COPY_SIZE))):
        sha256.update(data)
        sink.write(data)
        left -= len(data)
    if left:
        raise early(f"bundle: {name} ends {left} bytes early")
    return FileDigest(name, size, sha256.hexdigest())
