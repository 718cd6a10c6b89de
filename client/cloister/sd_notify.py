# SPDX-License-Identifier: Apache-2.0
"""Telling systemd how a service is: the protocol of sd_notify(3), which is one datagram a message.

A message is a hint to the service manager, so one that cannot be sent is dropped: a service must not stop because
nobody listens to it.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping

SOCKET_VARIABLE = "NOTIFY_SOCKET"
INTERVAL_VARIABLE = "WATCHDOG_USEC"
PID_VARIABLE = "WATCHDOG_PID"


class ServiceManager:
    """The manager that started this process, or nobody."""

    def __init__(self, environment: Mapping[str, str], clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` gives seconds that never go back."""
        self._address = _address(environment.get(SOCKET_VARIABLE, ""))
        self._interval = _watchdog_seconds(environment) if self._address else None
        self._clock = clock
        self._last = float("-inf")

    @property
    def watchdog_interval(self) -> float | None:
        """Seconds between two signs of life, half of what the manager allows; None where it does not watch."""
        return None if self._interval is None else self._interval / 2

    def ready(self, status: str) -> None:
        """The service answers from now on."""
        self._send("READY=1", status)

    def stopping(self, status: str) -> None:
        """The service has begun to stop."""
        self._send("STOPPING=1", status)

    def status(self, text: str) -> None:
        """One line for `systemctl status`: fixed words and figures."""
        self._send("", text)

    def alive(self) -> None:
        """A sign of life, to be given after a check that means it; more than four in an interval are not sent."""
        if self._interval is None or self._clock() - self._last < self._interval / 4:
            return
        self._last = self._clock()
        self._send("WATCHDOG=1", "")

    def _send(self, word: str, status: str) -> None:
        if self._address is None:
            return
        lines = [word] if word else []
        if status:
            lines.append("STATUS=" + " ".join(status.split()))
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                # Never wait: a manager whose queue is full would hold up the service that it watches.
                sender.setblocking(False)
                sender.sendto("\n".join(lines).encode("utf-8"), self._address)
        except OSError:
            return


def _address(value: str) -> str | None:
    if value.startswith("@"):
        return "\0" + value[1:]  # an abstract socket
    return value if value.startswith("/") else None


def _watchdog_seconds(environment: Mapping[str, str]) -> float | None:
    microseconds = environment.get(INTERVAL_VARIABLE, "")
    if not microseconds.isdecimal() or int(microseconds) == 0:
        return None
    if environment.get(PID_VARIABLE, "") not in ("", str(os.getpid())):
        return None  # meant for the process that started this one
    return int(microseconds) / 1e6
