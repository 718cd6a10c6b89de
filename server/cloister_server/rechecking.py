# SPDX-License-Identifier: Apache-2.0
"""Long calls and the roster: whoever was taken off it is cut off, also in the middle of a stream that stands still.

The gate wraps every stream of requests and of answers: the caller is looked up again every few seconds, whether
messages flow or not.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

RECHECK_SECONDS = 5.0
Recheck = Callable[[], Awaitable[None]]
"""Raises where the caller may not go on."""
_END = object()


async def rechecked(
    source: AsyncIterator[T],
    recheck: Recheck,
    seconds: float = RECHECK_SECONDS,
    clock: Callable[[], float] = time.monotonic,
) -> AsyncIterator[T]:
    """The messages of `source`, with `recheck` called whenever `seconds` have gone by.  Raises what it raises."""
    due = clock() + seconds
    pending: asyncio.Future[T | object] | None = None
    try:
        while True:
            pending = asyncio.ensure_future(_next(source))
            while not pending.done() or clock() >= due:
                await asyncio.wait({pending}, timeout=max(0.0, due - clock()))
                if clock() >= due:
                    await recheck()
                    due = clock() + seconds
            message = pending.result()
            if message is _END:
                return
            yield message  # type: ignore[misc]  # not the sentinel, so a message
    finally:
        await _give_up(pending)


async def finished(work: Awaitable[object], recheck: Recheck, seconds: float = RECHECK_SECONDS) -> None:
    """Wait for a handler that writes its answers by itself, in the same way."""
    pending = asyncio.ensure_future(work)
    try:
        while not pending.done():
            await asyncio.wait({pending}, timeout=seconds)
            if not pending.done():
                await recheck()
        pending.result()
    finally:
        await _give_up(pending)


async def _next(source: AsyncIterator[T]) -> T | object:
    return await anext(source, _END)


async def _give_up(pending: asyncio.Future[T] | None) -> None:
    if pending is not None and not pending.done():
        pending.cancel()
        await asyncio.gather(pending, return_exceptions=True)
