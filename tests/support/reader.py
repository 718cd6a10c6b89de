# SPDX-License-Identifier: Apache-2.0
"""What a reader of bytes that come from elsewhere is, and what its tests read with."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class Reader:
    """A reader of bytes."""

    read: Callable[[bytes], object]
    errors: tuple[type[Exception], ...]
    """What it says that it raises; anything else is a defect."""
    good: bytes


class Document(Protocol):
    def to_payload(self) -> bytes: ...


class Kind(Protocol):
    def parse(self, payload: bytes, /) -> Document: ...


def again(kind: Kind) -> Callable[[bytes], object]:
    def read(data: bytes) -> object:
        found = kind.parse(data)
        assert data == found.to_payload(), "what was read is not what is written: two forms of one meaning"
        return found

    return read


def as_text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def as_file(data: bytes) -> Path:
    path = Path(tempfile.mkdtemp()) / "file"
    path.write_bytes(data)
    return path
