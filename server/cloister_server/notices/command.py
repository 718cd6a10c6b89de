# SPDX-License-Identifier: Apache-2.0
"""Delivery to a program of the site, a hook: the notice on its standard input, exit status 0 for "taken".

Threat: a hook runs as the control plane's user, so the configuration that names it is as good as the control plane's
own code.  It gets no shell, no environment of the service, and no channel into the journal: what it prints is dropped,
because a program that fails may print anything.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Sequence

from cloister_server.notices.outbox import NoticeRow
from cloister_server.notices.target import COMMAND, TIME_LIMIT, Fault

ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}
"""All that a hook finds in its environment."""


class CommandTarget:
    """Starts one program for each notice."""

    name = COMMAND

    def __init__(self, arguments: Sequence[str], limit_seconds: float) -> None:
        """`arguments` begin with the program's absolute path."""
        self._arguments = tuple(arguments)
        self._limit_seconds = limit_seconds

    async def deliver(self, notice: NoticeRow) -> Fault | None:
        try:
            # A session of its own: at the time limit whatever the hook has started ends with it.
            process = await asyncio.create_subprocess_exec(
                *self._arguments,
                stdin=PIPE,
                stdout=DEVNULL,
                stderr=DEVNULL,
                env=ENVIRONMENT,
                cwd="/",
                start_new_session=True,
            )
        except OSError as error:
            return Fault("not_started", error.errno or 0)
        try:
            async with asyncio.timeout(self._limit_seconds):
                await process.communicate(notice.body.encode("utf-8") + b"\n")
        except TimeoutError:
            return TIME_LIMIT
        finally:
            await _end(process)
        return Fault("exit_status", process.returncode or 0) if process.returncode else None


async def _end(process: Process) -> None:
    """Nothing of a hook outlives its delivery, at the time limit or when the server stops."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
