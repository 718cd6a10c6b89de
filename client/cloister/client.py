# SPDX-License-Identifier: Apache-2.0
"""The client: one person at one site.

    from cloister import Client

    with Client.open() as client:
        dataset = client.datasets.push("tickets.jsonl", "tickets", ["ticket-routing"])
        job = client.jobs.submit("spec.yaml")
        for message in client.jobs.watch(job.id): ...
        client.models.release(job.id, reason="pilot")
        client.models.pull(job.id, "model")

Nothing is believed that the pinned root does not prove; see `cloister.site`.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from cloister.api.v1 import identity_pb2, models_pb2
from cloister.audit import Audit
from cloister.channel import Connection, connect
from cloister.datasets import Datasets
from cloister.evidence.signatures import Statement
from cloister.grants import Grants
from cloister.home import Home
from cloister.jobs import Jobs
from cloister.models import Models
from cloister.operations import Operations
from cloister.releases import Releases
from cloister.renewal import renew, renew_if_due
from cloister.session import Session
from cloister.site import SiteGuard
from cloister.tokens import Tokens
from cloister.wire import statement_to_proto


def wall_clock() -> int:
    """Unix seconds."""
    return int(time.time())


def new_id() -> str:
    """A random UUID."""
    return str(uuid.uuid4())


class Client:
    """Datasets, jobs, models and the audit log of a site.  Not for use from several threads at once."""

    def __init__(
        self,
        home: Home,
        connection: Connection,
        *,
        clock: Callable[[], int] = wall_clock,
        ids: Callable[[], str] = new_id,
    ) -> None:
        self._connection = connection
        self._home = home
        self.site = SiteGuard(home, connection, clock)
        session = Session(home, connection, self.site, clock, ids)
        self.datasets = Datasets(session)
        releases = Releases(session)
        self.models = Models(session, releases)
        self.jobs = Jobs(session, self.datasets, self.models)
        self.operations = Operations(session)
        self.audit = Audit(session)
        self.tokens = Tokens(session)
        self.grants = Grants(session, self.datasets, self.models, releases)

    @classmethod
    def open(
        cls,
        home: str | os.PathLike[str] | None = None,
        *,
        endpoint: str | None = None,
        clock: Callable[[], int] = wall_clock,
    ) -> Self:
        """Connect with the keys of a home (default: $CLOISTER_HOME, else ~/.cloister) and verify the site.

        Raises HomeError before enrolment, ConnectError, and an EvidenceError where roster or log do not verify.
        """
        place = Home.at(home)
        channel = connect(place, endpoint or place.pins().endpoint, clock())
        client = cls(place, Connection(channel), clock=clock)
        try:
            client.site.refresh()
        except BaseException:
            client.close()
            raise
        return client

    @property
    def cache(self) -> Path:
        """A private folder of the home, for what is there for a moment."""
        return self._home.cache

    def whoami(self) -> identity_pb2.WhoAmIResponse:
        """The caller as the control plane sees it."""
        stubs = self._connection
        return stubs.call(stubs.identity.WhoAmI, identity_pb2.WhoAmIRequest())

    def renew_certificate(self) -> datetime:
        """Renew the TLS certificate now, for the same key; when the new one ends.

        Raises RefusedError where the control plane issues none.
        """
        return renew(self._home, self._connection)

    def renew_if_due(self, now: int) -> str:
        """Renew a certificate past half its life, at most once a day; a word of warning where that failed."""
        return renew_if_due(self._home, self._connection, now)

    def publish_roster(self, roster: Statement) -> int:
        """Put a newer roster in force; return its version.  Admins."""
        stubs = self._connection
        request = identity_pb2.PublishRosterRequest(roster=statement_to_proto(roster))
        return stubs.call(stubs.identity.PublishRoster, request).version

    def publish_policy(self, policy: Statement) -> str:
        """Put a release policy in force; return its digest.  Admins and auditors."""
        stubs = self._connection
        request = models_pb2.PublishPolicyRequest(policy=statement_to_proto(policy))
        return stubs.call(stubs.models.PublishPolicy, request).digest

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
