# SPDX-License-Identifier: Apache-2.0
"""Waiting for what other processes do, with an end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(check: Callable[[], T | None], what: str, seconds: float = 90.0, pause: float = 0.02) -> T:
    """The first true answer of `check`; fails, naming what was awaited, when none comes in time."""
    idle = threading.Event()
    end = time.monotonic() + seconds
    while not (found := check()):
        assert time.monotonic() < end, f"{what}: not within {seconds:g} s"
        idle.wait(pause)
    return found


def let_pass(seconds: float) -> None:
    """Let a moment go by that a seed has chosen: a kill at random needs one, a test never waits for a result so."""
    threading.Event().wait(seconds)
