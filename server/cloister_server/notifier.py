# SPDX-License-Identifier: Apache-2.0
"""Wakes calls that wait for something new.  A hint only: whoever waits looks again at intervals anyway."""

from __future__ import annotations

import asyncio

from cloister_server.errors import StartError


class Notifier:
    """One event for everybody; the number of waiting calls is small."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._changed = asyncio.Event()
        self._stopping = False

    @property
    def stopping(self) -> bool:
        """Whether the server stops: streams end, and their callers come back."""
        return self._stopping

    def start(self) -> None:
        """Bind to the running loop."""
        self._loop = asyncio.get_running_loop()

    def notify(self) -> None:
        """Something changed.  Safe from any thread."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wake)

    def stop(self) -> None:
        self._stopping = True
        self.notify()

    async def wait(self, seconds: float) -> None:
        """Until something changed, or for so many seconds."""
        if self._loop is None:
            raise StartError("the notifier was not started")
        if self._stopping:
            return
        changed = self._changed
        try:
            await asyncio.wait_for(changed.wait(), seconds)
        except TimeoutError:
            return

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
