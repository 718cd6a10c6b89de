# SPDX-License-Identifier: Apache-2.0
"""The agent's certificate, asked for anew at half its life, between two pieces of work.

The new one replaces `agent/tls.crt`, where `renewal` finds it before the next call; so does one that a site with an
authority of its own puts there.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from cloister.errors import CloisterError
from cloister.files import replace_private
from cloister.renewal import expires_at, is_due, renewed
from cloister_workers.agent.host import Log

ASK_SECONDS = 3600
"""A site that does not renew is asked so often."""


class Ask(Protocol):
    """Answers a CSR with a certificate, both PEM.  Raises CloisterError."""

    def __call__(self, csr_pem: str) -> str: ...


@dataclass
class Recertification:
    """Looks at `agent/tls.crt`, and renews it."""

    folder: Path
    ask: Ask
    log: Log
    clock: Callable[[], int] = field(default=lambda: int(time.time()))
    """Unix seconds."""
    asked_at: int = 0

    def look(self) -> None:
        """Renew, if it is time to.  A failure is logged: the certificate in use is good still."""
        now = self.clock()
        pem = (self.folder / "tls.crt").read_bytes()
        if not is_due(pem, now) or now < self.asked_at + ASK_SECONDS:
            return
        self.asked_at = now
        try:
            new = renewed(pem, (self.folder / "tls.key").read_bytes(), self.ask)
        except CloisterError as error:
            ends = f"{expires_at(pem):%Y-%m-%d}"
            self.log({"event": "not_renewed", "ends": ends, "reason": error.reason, "message": str(error)})
            return
        if new == pem:
            return
        replace_private(self.folder / "tls.crt", new)
        self.log({"event": "renewed", "ends": f"{expires_at(new):%Y-%m-%d}"})
