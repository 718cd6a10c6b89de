# SPDX-License-Identifier: Apache-2.0
"""A bound on how long a check may compute."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from cloister_workers.errors import TookTooLong


@contextmanager
def processor_limit(seconds: float) -> Iterator[None]:
    """Raise TookTooLong inside the block once this process has computed for `seconds` in it. Main thread alone.

    An expression or schema can be written so that matching it takes longer than the universe will last, and the model
    then finds the text for it. The interpreter's own matching engine looks for signals while it matches, so it is
    stopped there as well. The timer counts the process's own time: a busy host changes nothing.

    What is raised can be lost: the interpreter drops an exception that a weak reference's callback or a finaliser ends
    with, and a library may catch it. So it is raised again each `seconds`, until the block is left.
    """
    left = False

    def stop(_: int, __: FrameType | None) -> None:
        if not left:
            raise TookTooLong

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds, seconds)
    try:
        yield
    finally:
        left = True  # first: a signal that comes while the timer is taken down must not end the caller
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
