# SPDX-License-Identifier: Apache-2.0
"""Bundles: deterministic tar files in sealed memory, for checkpoints and results.

POSIX ustar: regular files in name order, mode 0644, owner 0, time 0. Equal files give equal bytes. The
descriptor is a memfd sealed against any change, at offset 0, so that what its reader checks is what its
reader keeps.
"""

from __future__ import annotations

import fcntl
import io
import os
import re
import tarfile
from collections.abc import Mapping
from typing import BinaryIO

_MAX_NAME = 99
_SEGMENT = r"[A-Za-z0-9_][A-Za-z0-9._+@=-]*"
_NAME = re.compile(rf"{_SEGMENT}(/{_SEGMENT})?")
_MAX_FILES = 64
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


def write_bundle(files: Mapping[str, bytes]) -> int:
    """A sealed memfd with these files; the caller closes it."""
    descriptor = os.memfd_create("bundle", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with (
            os.fdopen(os.dup(descriptor), "wb") as stream,
            tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as archive,
        ):
            for name in sorted(files):
                entry = tarfile.TarInfo(checked_name(name))
                entry.size, entry.mode, entry.mtime = len(files[name]), 0o644, 0
                archive.addfile(entry, io.BytesIO(files[name]))
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
        os.lseek(descriptor, 0, os.SEEK_SET)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def read_bundle(stream: BinaryIO) -> dict[str, bytes]:
    """The files of a bundle, read to its end. Raises ValueError where it is cut short or holds anything but
    plain files.
    """
    files: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=stream, mode="r|", errorlevel=2) as archive:
            for entry in archive:
                content = archive.extractfile(entry) if entry.isreg() else None
                if content is None or entry.name in files or len(files) == _MAX_FILES:
                    raise ValueError("the bundle holds something other than a few plain files")
                files[checked_name(entry.name)] = content.read()
                if len(files[entry.name]) != entry.size:
                    raise ValueError("the bundle is cut short")
    except tarfile.TarError as error:
        raise ValueError("the bundle is no whole tar file") from error
    return files


def checked_name(name: str) -> str:
    """`name` where it is one or two plain segments, as `cloister.sealed.bundle.check_name` has it; else ValueError."""
    if len(name) > _MAX_NAME or not _NAME.fullmatch(name):
        raise ValueError("a name in the bundle is not a plain file name, at most one folder deep")
    return name
