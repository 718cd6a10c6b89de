# SPDX-License-Identifier: Apache-2.0
"""One call: who makes it, what it is about, and the entries that it leaves."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TypeAlias

import grpc.aio

from cloister.evidence.canonical import JSON
from cloister.evidence.entry import Actor, Event, Subject
from cloister.evidence.fields import IDENTIFIER

SYSTEM = Actor("control-plane", "system")
# Handlers read requests and answer; none of them looks at its context, which gRPC types by both.
Context: TypeAlias = "grpc.aio.ServicerContext[object, object]"

MEMBER = "member"
AUDITOR = "auditor"
WORKER = "worker"
ADMIN = "admin"


@dataclass(frozen=True)
class Principal:
    """A caller whom the roster knows."""

    id: str
    kind: str
    """person, host or enrolment"""
    team: str
    """Of a person; empty for a host."""
    pool: str
    """Of a host; empty for a person."""
    roles: frozenset[str]
    cert_sha256: str
    transport: str

    @property
    def actor(self) -> Actor:
        return Actor(self.id, self.kind, self.cert_sha256)

    def may_see(self, team: str) -> bool:
        """Register entries of a team: its own people, and auditors."""
        return self.kind == "person" and (self.team == team or AUDITOR in self.roles)


@dataclass
class Call:
    """Set by the gate for the time of a call; `subject` is told by the service as soon as it knows it."""

    method: str
    corr_id: str
    principal: Principal
    recheck: Callable[[], Awaitable[None]]
    """Resolve the caller again, on a long stream.  Raises UnknownIdentityError, RoleRequiredError."""
    subject: Subject = field(default=Subject("method", ""))

    def about(self, kind: str, identifier: str) -> None:
        """Name the object for the entry that a refusal leaves; what is no id is not written down."""
        self.subject = Subject(kind, identifier if IDENTIFIER.fullmatch(identifier) else "")

    def event(
        self,
        action: str,
        subject: Subject,
        *,
        stage: str = "outcome",
        outcome: str = "ok",
        reason: str = "",
        detail: Mapping[str, JSON] | None = None,
    ) -> Event:
        """An entry by this caller."""
        return Event(
            action=action,
            actor=self.principal.actor,
            object=subject,
            outcome=outcome,
            stage=stage,
            reason=reason,
            corr_id=self.corr_id,
            detail=dict(detail or {}),
        )


_current: ContextVar[Call] = ContextVar("cloister_call")


def current_call() -> Call:
    """The call that is being handled."""
    return _current.get()


def enter_call(call: Call) -> None:
    """Make `call` the current one of this task."""
    _current.set(call)
