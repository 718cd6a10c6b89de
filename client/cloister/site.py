# SPDX-License-Identifier: Apache-2.0
"""What the client believes of a site: only what the pinned root, and the log's own past, prove.

Steps of `SiteGuard.refresh`: (1) the roster is signed by the pinned root, for this site, in force, and not older
than the newest seen; (2) this client is new enough; (3) the log's head is signed by the key that the roster names
and extends the head that was kept, or one at which the root says that the log was restored; (4) only then both
are kept.
A control plane that serves an old roster, rolls the log back or shows two logs is refused here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from cloister import __version__
from cloister.api.v1 import audit_pb2, identity_pb2
from cloister.channel import Connection
from cloister.errors import CloisterError, UsageError
from cloister.evidence.checkpoint import Checkpoint, open_checkpoint
from cloister.evidence.errors import BindingError, ForkError, RollbackError
from cloister.evidence.note import NoteVerifier
from cloister.evidence.opening import verify_head
from cloister.evidence.policy import Policy
from cloister.evidence.restoration import LogMemory, after_restorations
from cloister.evidence.roster import Person, Roster, root_of, verify_roster
from cloister.evidence.signatures import Statement
from cloister.files import replace_private
from cloister.home import Home, SitePins, SiteState, pin_root
from cloister.reasons import LOG_BEHIND_CALLER
from cloister.wire import statement_from_proto

ENVELOPE_VERSION = 1
ROSTER_FILE = "roster.dsse"


@dataclass(frozen=True)
class SiteView:
    """A verified moment of the site."""

    roster: Roster
    head: Checkpoint
    extends: int
    """Size of the head that was kept before; 0 for none."""
    server_version: str


def remembered_checkpoint(state: SiteState) -> Checkpoint | None:
    """The head that was kept; it was verified before it was stored."""
    return LogMemory(state.checkpoint, state.restorations).head()


class SiteGuard:
    """Verifies and remembers, for one home."""

    def __init__(self, home: Home, connection: Connection, clock: Callable[[], int]) -> None:
        self._home = home
        self._connection = connection
        self._clock = clock
        self.pins: SitePins = home.pins()
        self._view: SiteView | None = None

    @property
    def view(self) -> SiteView:
        """The verified site; asked for once and then kept for this session."""
        return self._view if self._view is not None else self.refresh()

    @property
    def roster(self) -> Roster:
        return self.view.roster

    def me(self) -> Person:
        """This home's person on the roster.  Raises RosterError."""
        return self.roster.person(self.pins.id)

    def refresh(self) -> SiteView:
        """Ask the site and verify.  Raises an EvidenceError, and forgets nothing, where a check fails."""
        with self._home.locked_state() as state:
            # Asked under the lock: what another command of this home saw meanwhile would make this look rolled back.
            answer = self._connection.call(self._connection.identity.GetSite, identity_pb2.GetSiteRequest())
            # (1) and (2) The roster.
            statement = statement_from_proto(answer.roster)
            roster = self._checked_roster(statement, state)
            check_versions(roster.minimum_client_version, list(answer.envelope_versions))
            # (3) The log.
            memory = after_restorations(LogMemory(state.checkpoint, state.restorations), roster)
            remembered = memory.head()
            note, proof = self._newest_head(0 if remembered is None else remembered.size)
            head = verify_head(note, proof, roster, remembered)
            _check_against(answer.checkpoint, roster, remembered)
            # (4) Keep both.
            if memory.checkpoint != state.checkpoint:
                self._set_aside(state)
            newer = replace(
                state,
                roster_version=roster.version,
                checkpoint=note.decode("utf-8"),
                restorations=memory.restorations,
            )
            self._home.save_state(newer)
            replace_private(self._home.directory / ROSTER_FILE, statement.to_bytes())
            self._follow_root(roster)
        self._view = SiteView(roster, head, 0 if remembered is None else remembered.size, answer.server_version)
        return self._view

    def accept_policy(self, policy: Policy) -> None:
        """Refuse a release policy that is older than one seen before, whatever its id; remember it otherwise.

        One counter for the site: an earlier policy under another id would be a rollback as well.
        """
        with self._home.locked_state() as state:
            seen = max(state.policies.values(), default=0)
            renamed = policy.version == seen and policy.id not in state.policies
            if policy.version < seen or renamed:
                raise RollbackError(
                    f"release policy {policy.id} version {policy.version} is older than version {seen}, which was "
                    "seen before: the control plane may be serving an old policy; tell an auditor"
                )
            self._home.save_state(replace(state, policies={**state.policies, policy.id: policy.version}))

    def _set_aside(self, state: SiteState) -> None:
        """Keep the head that gave way: it is what proves, later, how far the lost part of the log went."""
        lost = remembered_checkpoint(state)
        if lost is not None:
            name = f"set-aside-{lost.size}.checkpoint"
            replace_private(self._home.directory / name, state.checkpoint.encode("utf-8"))

    def _checked_roster(self, statement: Statement, state: SiteState) -> Roster:
        roster = verify_roster(statement, self.pins.root_public, seen_version=state.roster_version, now=self._clock())
        if roster.site != self.pins.site:
            raise BindingError(f"the roster is of site {roster.site!r}, this home belongs to {self.pins.site!r}")
        return roster

    def _follow_root(self, roster: Roster) -> None:
        """Pin the root that succeeded the pinned one.  Last of all: until then the chain is followed again."""
        root = root_of(roster, self.pins.root_public)
        if root != self.pins.root_public:
            self.pins = pin_root(self._home, root)

    def _newest_head(self, since: int) -> tuple[bytes, tuple[bytes, ...]]:
        request = audit_pb2.GetCheckpointRequest(since_size=since)
        try:
            answer = self._connection.call(self._connection.audit.GetCheckpoint, request)
        except CloisterError as error:
            if error.reason == LOG_BEHIND_CALLER:
                raise RollbackError(
                    f"the log has fewer than the {since} entries that were seen before: it was rolled back; "
                    "tell an auditor"
                ) from None
            raise
        return answer.checkpoint, tuple(answer.consistency_proof)


def stored_roster(home: Home, now: int) -> Roster:
    """The roster that was verified last, for work without the site.  Raises HomeError, EvidenceError."""
    statement = Statement.from_bytes(home.read(ROSTER_FILE))
    return verify_roster(statement, home.pins().root_public, seen_version=home.state().roster_version, now=now)


def check_versions(minimum_client: str, envelopes: list[int]) -> None:
    """Raises UsageError where this client is too old for the site."""
    if _version(__version__) < _version(minimum_client):
        raise UsageError(f"the site wants cloister {minimum_client} or newer, this is {__version__}; update it")
    if envelopes and ENVELOPE_VERSION not in envelopes:
        raise UsageError(f"the site does not take envelope version {ENVELOPE_VERSION}; update cloister")


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".") if part.isdigit())


def _check_against(note: bytes, roster: Roster, remembered: Checkpoint | None) -> None:
    """The head inside GetSite has no proof; what can be told from it is told."""
    if not note or remembered is None:
        return
    shown = open_checkpoint(note, NoteVerifier.parse(roster.log_vkey), roster.log_origin)
    if shown.size < remembered.size:
        raise RollbackError(f"the site shows a log of {shown.size} entries, {remembered.size} were seen before")
    if shown.size == remembered.size and shown.root != remembered.root:
        raise ForkError(f"at {shown.size} entries the site shows another log than before; tell an auditor")
