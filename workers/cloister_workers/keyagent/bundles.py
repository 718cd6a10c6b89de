# SPDX-License-Identifier: Apache-2.0
"""The bundle that a trainer hands over, checked and put into the one canonical form before it is sealed.

What is sealed is made here from names and contents: nothing that a trainer puts between or behind the files of
its tar leaves the host.  The form is that of `cloister.sealed.bundle`.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from cloister.evidence.layers import ADAPTER, DEMONSTRATIONS, MERGED_WEIGHTS, RETRIEVAL_INDEX
from cloister.sealed.bundle import BLOCK_SIZE, END, BundleLimits, check_name
from cloister.sealed.errors import BundleFormatError, BundleLimitError
from cloister.sealed.filelist import (
    REPORT_FILES,
    FileDigest,
    check_model_file,
    check_predictions_file,
    check_report_file,
    list_digest,
)
from cloister_workers.keyagent.errors import RequestError

_LAYER_FILES = {
    "adapter_config.json": ADAPTER,
    "retrieval.json": RETRIEVAL_INDEX,
    "demonstrations.json": DEMONSTRATIONS,
}
"""A file that shows which kind of layer a bundle is."""
_COPY = 1 << 20
_LIMITS = BundleLimits(max_files=256)
_REPORT_LIMITS = BundleLimits(max_files=len(REPORT_FILES), max_file_size=8 << 20)
_PREDICTIONS_LIMITS = BundleLimits(max_files=1, max_file_size=1 << 30)
_FROZEN = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW


@dataclass(frozen=True)
class Member:
    """A file inside: where its content stands in the memory, and what it is."""

    digest: FileDigest
    offset: int


def check_frozen(fd: int) -> None:
    """Raise RequestError unless `fd` is memory that nobody can change any more."""
    try:
        seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
    except OSError:
        raise RequestError("the bundle is not in a memfd") from None
    if seals & _FROZEN != _FROZEN:
        raise RequestError("the bundle's memfd is not sealed against changes")


def scan_report(file: BinaryIO) -> tuple[Member, ...]:
    """The files of a report: `REPORT_FILES`, both of them, and together no longer than one may be.

    Raises as `scan` does.
    """
    members = scan(file, _REPORT_LIMITS, check_report_file)
    if len(members) != len(REPORT_FILES):
        raise BundleFormatError("bundle: a report lacks one of its files")
    if sum(member.digest.size for member in members) > _REPORT_LIMITS.max_file_size:
        raise BundleLimitError("bundle: the report is longer than one may be")
    return members


def scan_predictions(file: BinaryIO) -> tuple[Member, ...]:
    """The one file of an inference job's report.  Raises as `scan` does."""
    return scan(file, _PREDICTIONS_LIMITS, check_predictions_file)


def scan(
    file: BinaryIO, limits: BundleLimits = _LIMITS, allow: Callable[[str], None] = check_model_file
) -> tuple[Member, ...]:
    """The files of a bundle in ascending order.

    Raises UnsafeNameError, FileNotAllowedError (by default only weights as safetensors, JSON and tokenizer files
    are allowed), BundleLimitError, BundleFormatError.
    """
    members: list[Member] = []
    try:
        with tarfile.open(fileobj=file, mode="r:", errorlevel=2) as archive:
            for entry in archive:
                if not entry.isreg() or entry.issparse():
                    raise BundleFormatError("bundle: it holds something other than plain files")
                check_name(entry.name)
                allow(entry.name)
                if len(members) >= limits.max_files or entry.size > limits.max_file_size:
                    raise BundleLimitError("bundle: more or larger files than a checkpoint or result may have")
                members.append(_member(file, entry))
    except (tarfile.TarError, ValueError, OverflowError, IndexError):
        raise BundleFormatError("bundle: not a whole tar file") from None
    members.sort(key=lambda member: member.digest.name)
    names = [member.digest.name for member in members]
    if not names or len(set(names)) != len(names):
        raise BundleFormatError("bundle: empty, or a name stands in it twice")
    return tuple(members)


def files_sha256(members: tuple[Member, ...]) -> str:
    """The digest that names these files."""
    return list_digest(member.digest for member in members)


def layer_of(members: tuple[Member, ...]) -> str:
    """Which kind of layer these files are; merged weights where none of them shows another.

    Raises BundleFormatError for files of two kinds: whoever opens it later could take it for either.
    """
    found = [_LAYER_FILES[member.digest.name] for member in members if member.digest.name in _LAYER_FILES]
    if len(found) > 1:
        raise BundleFormatError("bundle: it holds the files of more than one kind of layer")
    return found[0] if found else MERGED_WEIGHTS


def _member(file: BinaryIO, entry: tarfile.TarInfo) -> Member:
    sha256, position, left = hashlib.sha256(), entry.offset_data, entry.size
    while left:
        data = os.pread(file.fileno(), min(left, _COPY), position)
        if not data:
            raise BundleFormatError("bundle: it is cut short")
        sha256.update(data)
        position, left = position + len(data), left - len(data)
    return Member(FileDigest(entry.name, entry.size, sha256.hexdigest()), entry.offset_data)


class CanonicalBundle:
    """The canonical form of these members, as a source for `seal_stream`."""

    def __init__(self, fd: int, members: tuple[Member, ...]) -> None:
        self._pieces = self._generate(fd, members)
        self._left = memoryview(b"")

    def readinto(self, buffer: bytearray | memoryview, /) -> int:
        """Put the next bytes into `buffer`; 0 at the end."""
        while not self._left:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._left = memoryview(piece)
        count = min(len(buffer), len(self._left))
        buffer[:count] = self._left[:count]
        self._left = self._left[count:]
        return count

    @staticmethod
    def _generate(fd: int, members: tuple[Member, ...]) -> Iterator[bytes]:
        for member in members:
            header = tarfile.TarInfo(member.digest.name)
            header.size = member.digest.size
            yield header.tobuf(tarfile.PAX_FORMAT)
            position, left = member.offset, member.digest.size
            while left:
                data = os.pread(fd, min(left, _COPY), position)
                if not data:
                    raise BundleFormatError("bundle: it shrank while it was sealed")
                yield data
                position, left = position + len(data), left - len(data)
            yield bytes(-member.digest.size % BLOCK_SIZE)
        yield END
