# SPDX-License-Identifier: Apache-2.0
"""The roster in force: verified against the pinned root, never older than one seen before.

The newest row of the table is in force.  `current` answers from memory; `refresh` follows what another control
plane on the same database published.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Connection, func, insert, select

from cloister.evidence.canonical import JSON
from cloister.evidence.entry import Event, Subject
from cloister.evidence.errors import BindingError, EvidenceError, ForkError
from cloister.evidence.roster import Roster, verify_roster
from cloister.evidence.signatures import Statement
from cloister_server.calls import SYSTEM, Call
from cloister_server.database import tables
from cloister_server.database.engine import now_ms
from cloister_server.database.unit_of_work import Transaction, UnitOfWork
from cloister_server.errors import StartError, WrongStateError, of_roster

Clock = Callable[[], int]


@dataclass(frozen=True)
class InForce:
    """A verified roster with the bytes that were signed."""

    statement: Statement
    roster: Roster


@dataclass(frozen=True)
class Expected:
    """What a roster of this site must say."""

    site: str
    root_public: bytes
    log_origin: str
    log_vkey: str


class Rosters:
    """Keeps the roster in force."""

    def __init__(self, unit_of_work: UnitOfWork, expected: Expected, clock: Clock) -> None:
        self._unit_of_work = unit_of_work
        self._expected = expected
        self._clock = clock
        self._in_force: InForce | None = None

    def current(self) -> InForce:
        """The newest roster, expired or not."""
        if self._in_force is None:
            raise StartError("no roster was loaded; the site must be started with one")
        return self._in_force

    def valid(self) -> Roster:
        """The roster in force.  Raises WrongStateError once it has expired."""
        roster = self.current().roster
        if self._clock() >= roster.expires_at:
            raise WrongStateError(
                "the site's roster has expired; the root custodian must sign a newer one", state="roster_expired"
            )
        return roster

    def start(self, first: Statement) -> None:
        """Load the newest roster, or take `first` where it is newer.  Raises StartError."""
        self.refresh()
        stored = self._in_force
        try:
            roster = self._verify(first, 0 if stored is None else stored.roster.version)
        except EvidenceError as error:
            if stored is not None and not isinstance(error, ForkError | BindingError):
                return  # an older or expired file beside a database that knows a newer roster
            raise StartError(f"roster file: {error}") from error
        if stored is None or roster.version > stored.roster.version:
            self._unit_of_work.run("roster.publish", lambda tx: self._take(tx, first, roster))
            self.refresh()

    def _take(self, tx: Transaction, first: Statement, roster: Roster) -> None:
        """Store the file's roster, unless another control plane that starts now has done so."""
        newest = _newest_version(tx.connection)
        if newest is None or roster.version > newest:
            self._store(tx, first, roster, _started(first, roster))

    def publish(self, call: Call, statement: Statement) -> int:
        """Put a newer roster in force; the same one again changes nothing.  Returns the version in force."""

        def work(tx: Transaction) -> int:
            stored = _newest(tx.connection)
            try:
                roster = self._verify(statement, 0 if stored is None else Roster.parse(stored.payload).version)
                if stored is not None and Roster.parse(stored.payload).version == roster.version:
                    _check_same(stored, statement)
                    return roster.version
            except EvidenceError as error:
                raise of_roster(error) from error
            detail: dict[str, JSON] = {"version": roster.version}
            subject = Subject("roster", roster.site, statement.digest)
            self._store(tx, statement, roster, call.event("roster.publish", subject, detail=detail))
            return roster.version

        version = self._unit_of_work.run("roster.publish", work)
        self.refresh()
        return version

    def newest(self) -> InForce:
        """The roster in force, after a look whether another control plane has published a newer one.

        For answers that hand the roster out: a host that was shown a newer one refuses whatever comes with an older.
        """
        self.refresh()
        return self.current()

    def refresh(self) -> None:
        """Take over the newest stored roster.  Its age was checked when it was stored; its signature is again."""
        version = self._unit_of_work.read(_newest_version)
        if version is None or (self._in_force is not None and version <= self._in_force.roster.version):
            return
        statement = self._unit_of_work.read(_newest)
        if statement is None:
            return
        issued = Roster.parse(statement.payload).issued_at
        roster = verify_roster(statement, self._expected.root_public, seen_version=0, now=issued)
        if self._in_force is None or roster.version > self._in_force.roster.version:
            self._in_force = InForce(statement, roster)

    def _verify(self, statement: Statement, seen_version: int) -> Roster:
        roster = verify_roster(statement, self._expected.root_public, seen_version=seen_version, now=self._clock())
        found = (roster.site, roster.log_origin, roster.log_vkey)
        if found != (self._expected.site, self._expected.log_origin, self._expected.log_vkey):
            raise BindingError(
                f"the roster names site {found[0]} and log {found[1]}, or another log key: not this site's"
            )
        return roster

    def _store(self, tx: Transaction, statement: Statement, roster: Roster, event: Event) -> None:
        tx.connection.execute(
            insert(tables.roster).values(
                version=roster.version, statement=statement.to_bytes(), published_at=now_ms(tx.connection)
            )
        )
        tx.record(event)


def _newest(connection: Connection) -> Statement | None:
    query = select(tables.roster.c.statement).order_by(tables.roster.c.version.desc()).limit(1)
    stored = connection.execute(query).scalar_one_or_none()
    return None if stored is None else Statement.from_bytes(stored)


def _newest_version(connection: Connection) -> int | None:
    found: int | None = connection.execute(select(func.max(tables.roster.c.version))).scalar_one()
    return found


def _check_same(stored: Statement, offered: Statement) -> None:
    if stored.payload != offered.payload:
        raise ForkError("another roster of this version is in force; the root custodian must count the version on")


def _started(statement: Statement, roster: Roster) -> Event:
    subject = Subject("roster", roster.site, statement.digest)
    return Event("roster.publish", SYSTEM, subject, detail={"version": roster.version})
