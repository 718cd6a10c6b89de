# SPDX-License-Identifier: Apache-2.0
"""The agent's certificate, renewed at half its life between two pieces of work, and used at once.

A site with an authority of its own replaces `agent/tls.crt` by its own means: that is noticed in the same place.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import grpc

from cloister.api.v1 import identity_pb2
from cloister.api.v1.identity_pb2_grpc import IdentityServiceStub
from cloister.channel import translate
from cloister.errors import CloisterError
from cloister.files import replace_private
from cloister.renewal import expires_at, is_due, renewed
from cloister_workers.agent.control import DEADLINE_SECONDS
from cloister_workers.agent.host import Log

ASK_SECONDS = 3600
"""A site that does not renew is asked so often."""


class Ask(Protocol):
    """Answers a CSR with a certificate, both PEM.  Raises CloisterError."""

    def __call__(self, csr_pem: str) -> str: ...


@dataclass
class Renewal:
    """Looks at `agent/tls.crt`, and renews it."""

    folder: Path
    in_use: bytes
    """The certificate of the connection, PEM."""
    ask: Ask
    log: Log
    clock: Callable[[], int] = field(default=lambda: int(time.time()))
    """Unix seconds."""
    asked_at: int = 0

    def due(self) -> bool:
        """Renew, if it is time to; whether there is a new certificate to connect with."""
        now = self.clock()
        pem = (self.folder / "tls.crt").read_bytes()
        if pem != self.in_use:
            return True
        if not is_due(pem, now) or now < self.asked_at + ASK_SECONDS:
            return False
        self.asked_at = now
        try:
            new = renewed(pem, (self.folder / "tls.key").read_bytes(), self.ask)
        except CloisterError as error:
            ends = f"{expires_at(pem):%Y-%m-%d}"
            self.log({"event": "not_renewed", "ends": ends, "reason": error.reason, "message": str(error)})
            return False
        if new == pem:
            return False
        replace_private(self.folder / "tls.crt", new)
        self.log({"event": "renewed", "ends": f"{expires_at(new):%Y-%m-%d}"})
        return True


def asking(channel: grpc.Channel) -> Ask:
    """The control plane's answer on a channel."""
    stub = IdentityServiceStub(channel)

    def ask(csr_pem: str) -> str:
        request = identity_pb2.RenewCertificateRequest(csr_pem=csr_pem)
        try:
            return stub.RenewCertificate(request, timeout=DEADLINE_SECONDS).certificate_pem
        except grpc.RpcError as error:
            raise translate(error) from None

    return ask
