# SPDX-License-Identifier: Apache-2.0
"""The way to the control plane, made anew when this host's certificate is renewed.

gRPC reads a client's certificate once, when a channel is made; a job may outlast a certificate.  So whoever calls
asks here first, and gets a channel of the newest good pair.  Calls that are under way end on the channel they began on.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from cloister.tls import pair_fault
from cloister_workers.agent.control import Stubs
from cloister_workers.agent.host import Log

CERTIFICATE, KEY = "tls.crt", "tls.key"


class Channel(Protocol):
    """What is closed in the end; `grpc.Channel` is one."""

    def close(self) -> None: ...


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, PEM."""

    certificate_pem: bytes
    key_pem: bytes

    def __repr__(self) -> str:
        return "Pair()"


class RenewedChannel:
    """Stubs on a channel of the newest good pair in a folder.  Safe for threads."""

    def __init__(
        self,
        folder: Path,
        first: Pair,
        make: Callable[[Pair], tuple[Channel, Stubs]],
        now: Callable[[], datetime],
        log: Log,
    ) -> None:
        """`make` opens a channel with a pair; `now` is aware."""
        self._folder = folder
        self._make = make
        self._now = now
        self._log = log
        self._lock = threading.Lock()
        self._seen = self._stamps()
        self._channel, self._stubs = make(first)
        self._before: Channel | None = None

    def stubs(self) -> Stubs:
        """For one call."""
        with self._lock:
            stamps = self._stamps()
            if stamps != self._seen:
                self._seen = stamps
                self._renew()
            return self._stubs

    def close(self) -> None:
        """End every call."""
        with self._lock:
            for channel in (self._before, self._channel):
                if channel is not None:
                    channel.close()

    def _renew(self) -> None:
        try:
            pair = Pair((self._folder / CERTIFICATE).read_bytes(), (self._folder / KEY).read_bytes())
        except OSError as error:
            self._log({"event": "tls_reload_failed", "reason": f"{error.filename}: {error.strerror}"})
            return
        if fault := pair_fault(pair.certificate_pem, pair.key_pem, self._now()):
            # Half of a renewal looks like this too; its second file brings the next try.
            self._log({"event": "tls_reload_failed", "reason": fault})
            return
        if self._before is not None:
            self._before.close()  # of the renewal before the last: no call is as old
        self._before = self._channel
        self._channel, self._stubs = self._make(pair)
        self._log({"event": "tls_reloaded"})

    def _stamps(self) -> tuple[tuple[int, int], ...]:
        found = []
        for name in (CERTIFICATE, KEY):
            path = self._folder / name
            stat = path.stat() if path.exists() else None
            found.append((0, 0) if stat is None else (stat.st_mtime_ns, stat.st_ino))
        return tuple(found)
