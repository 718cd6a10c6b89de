# SPDX-License-Identifier: Apache-2.0
"""Long calls are looked at again, on a clock that the tests turn."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from cloister_server.errors import UnknownIdentityError
from cloister_server.rechecking import finished, rechecked


class Roster:
    """Counts how often it is asked; refuses once `gone` is set."""

    def __init__(self) -> None:
        self.asked = 0
        self.gone = False

    async def recheck(self) -> None:
        self.asked += 1
        if self.gone:
            raise UnknownIdentityError("not on the roster")


async def numbers(count: int) -> AsyncIterator[int]:
    for number in range(count):
        yield number


async def silence() -> AsyncIterator[int]:
    await asyncio.Event().wait()
    yield 0


def test_messages_pass_through_in_order() -> None:
    """Nothing is lost, added or asked while no time goes by."""
    roster = Roster()

    async def run() -> list[int]:
        return [number async for number in rechecked(numbers(5), roster.recheck, 10.0, lambda: 0.0)]

    assert [0, 1, 2, 3, 4] == asyncio.run(run())
    assert 0 == roster.asked


def test_a_flowing_stream_is_looked_at_by_time_not_by_size() -> None:
    """Each time that the clock has gone on far enough the caller is looked up, between two messages."""
    roster, now = Roster(), [0.0]

    async def run() -> None:
        async for _ in rechecked(numbers(6), roster.recheck, 10.0, lambda: now[0]):
            now[0] += 5.0

    asyncio.run(run())
    assert 3 == roster.asked


def test_a_revoked_caller_gets_no_further_message() -> None:
    """Once the roster does not have the caller, the message that was ready is withheld."""
    roster, now, got = Roster(), [0.0], []

    async def run() -> None:
        async for number in rechecked(numbers(6), roster.recheck, 10.0, lambda: now[0]):
            got.append(number)
            roster.gone = number == 2
            now[0] += 10.0

    with pytest.raises(UnknownIdentityError):
        asyncio.run(run())
    assert [0, 1, 2] == got


@pytest.mark.timeout(20)
def test_a_stream_that_stands_still_ends_too() -> None:
    """A revoked caller who waits for a message that never comes is cut off, and the source is not left running."""
    roster = Roster()
    roster.gone = True

    async def run() -> int:
        with pytest.raises(UnknownIdentityError):
            [number async for number in rechecked(silence(), roster.recheck, 0.0)]
        with pytest.raises(UnknownIdentityError):
            await finished(asyncio.Event().wait(), roster.recheck, 0.0)
        return len(asyncio.all_tasks())

    assert 1 == asyncio.run(run())


def test_what_the_source_raises_is_raised() -> None:
    """An error of the handler itself stays what it is."""

    async def broken() -> AsyncIterator[int]:
        yield 1
        raise ValueError("of the handler")

    async def run() -> None:
        async for _ in rechecked(broken(), Roster().recheck):
            pass

    with pytest.raises(ValueError, match="of the handler"):
        asyncio.run(run())
