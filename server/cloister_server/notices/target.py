# SPDX-License-Identifier: Apache-2.0
"""Where a notice is delivered to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from cloister_server.notices.outbox import NoticeRow

COMMAND = "command"
URL = "url"


@dataclass(frozen=True)
class Fault:
    """Why a target did not take a notice, in a fixed word and a figure: nothing that a command or receiver said."""

    word: str
    figure: int = 0
    """Exit status (negative for a signal), HTTP status or errno; 0 where there is none."""


TIME_LIMIT = Fault("time_limit")


class Target(Protocol):
    """Takes notices."""

    @property
    def name(self) -> str:
        """COMMAND or URL."""

    async def deliver(self, notice: NoticeRow) -> Fault | None:
        """None once the target has taken it.  Ends within the target's time limit."""
