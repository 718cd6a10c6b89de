# SPDX-License-Identifier: Apache-2.0
"""A clock that tests set."""

from __future__ import annotations

NOW = 1_800_000_000


class Clock:
    """Gives Unix seconds; stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> int:
        return self.now
