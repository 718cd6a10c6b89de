# SPDX-License-Identifier: Apache-2.0
"""The service manager's end of sd_notify: a datagram socket that a test listens on."""

from __future__ import annotations

import contextlib
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class NotifySocket:
    """What services have told."""

    def __init__(self, address: str, listener: socket.socket) -> None:
        self.address = address
        """As NOTIFY_SOCKET names it."""
        self._listener = listener

    def next(self) -> dict[str, str]:
        """The next message; waits for it, with an end."""
        lines = self._listener.recv(4096).decode().splitlines()
        return dict(line.split("=", 1) for line in lines)

    def waiting(self) -> list[bytes]:
        """The messages that have arrived and were not read yet."""
        found, patience = [], self._listener.gettimeout()
        self._listener.settimeout(0)
        with contextlib.suppress(BlockingIOError):
            while True:
                found.append(self._listener.recv(4096))
        self._listener.settimeout(patience)
        return found

    def until(self, word: str) -> dict[str, str]:
        """The next message that has this word."""
        while word not in (message := self.next()):
            continue
        return message


@contextmanager
def notify_socket(folder: Path, *, abstract: bool = False, seconds: float = 60.0) -> Iterator[NotifySocket]:
    """Listen below a folder, or on an abstract name."""
    name = f"cloister-{secrets.token_hex(8)}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(f"\0{name}" if abstract else str(folder / "notify"))
        listener.settimeout(seconds)
        yield NotifySocket(f"@{name}" if abstract else str(folder / "notify"), listener)
