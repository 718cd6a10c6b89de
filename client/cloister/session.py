# SPDX-License-Identifier: Apache-2.0
"""What the nouns of the library share: a home, a connection, a verified site, a clock and a source of ids."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, TypeVar

from cloister.api.v1 import common_pb2
from cloister.channel import Connection
from cloister.errors import UsageError
from cloister.home import Home
from cloister.sealed.keys import Recipient
from cloister.site import SiteGuard

R = TypeVar("R")
PAGE_SIZE = 100
DAY_SECONDS = 24 * 3600
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True)
class Session:
    """One person at one site."""

    home: Home
    connection: Connection
    site: SiteGuard
    clock: Callable[[], int]
    """Unix seconds."""
    new_id: Callable[[], str]
    """A fresh UUID each time."""

    def recipients(self, pool: str) -> list[Recipient]:
        """Who can open what this team seals for a pool: its hosts now, and the team's recovery key.

        The keys are the roster's, never ones that the control plane offers.  Raises UsageError for an empty pool.
        """
        recovery = self.site.roster.team(self.site.me().team).recovery_recipient
        return [*self.pool_recipients(pool), Recipient.parse(recovery)]

    def pool_recipients(self, pool: str) -> list[Recipient]:
        """The hosts that the roster certifies for a pool now.  Raises UsageError for an empty pool."""
        roster = self.site.roster
        hosts = roster.pool_hosts(pool, self.clock())
        if not hosts:
            known = ", ".join(sorted({host.pool for host in roster.hosts})) or "none"
            raise UsageError(f"pool {pool!r} has no certified host; pools of this site: {known}")
        return [Recipient.parse(host.sealing_recipient) for host in hosts]


class _Page(Protocol):
    @property
    def next_page_token(self) -> str: ...


P = TypeVar("P", bound=_Page)


def pages(fetch: Callable[[common_pb2.PageRequest], P], limit: int | None = None) -> Iterator[P]:
    """Every page of a list, or as many as hold `limit` items."""
    token, left = "", limit
    while True:
        size = PAGE_SIZE if left is None else max(1, min(PAGE_SIZE, left))
        page = fetch(common_pb2.PageRequest(page_size=size, page_token=token))
        yield page
        token = page.next_page_token
        left = None if left is None else left - size
        if not token or (left is not None and left <= 0):
            return


def is_id(text: str) -> bool:
    """Whether a text is an object's id rather than its name."""
    return _UUID.fullmatch(text) is not None


def check_name(kind: str, name: str) -> str:
    """A name that people give: shown to the control plane, so it must not say what is inside.  Raises UsageError."""
    if not 1 <= len(name) <= 100 or not name.isprintable() or name != name.strip():
        raise UsageError(f"{kind} name: use 1 to 100 printable characters, without spaces at the ends")
    if is_id(name):
        raise UsageError(f"{kind} name {name!r} looks like an id; choose another")
    return name
