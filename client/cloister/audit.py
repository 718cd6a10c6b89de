# SPDX-License-Identifier: Apache-2.0
"""The audit log from outside: listed, exported, and verified against what this home remembers."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cloister.api.v1 import audit_pb2, common_pb2
from cloister.channel import messages
from cloister.errors import ServerError
from cloister.evidence.checkpoint import Checkpoint, open_checkpoint
from cloister.evidence.entry import Entry
from cloister.evidence.errors import TruncatedError
from cloister.evidence.log import Verdict
from cloister.evidence.note import NoteVerifier
from cloister.evidence.roster import Roster
from cloister.evidence_export import verify_export, write_export
from cloister.home import Home
from cloister.session import Session, pages
from cloister.site import remembered_checkpoint, stored_roster

EXPORT_SECONDS = 24 * 3600.0


@dataclass(frozen=True)
class Query:
    """Which entries; empty fields match all."""

    action: str = ""
    actor: str = ""
    object_id: str = ""
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True)
class LiveVerdict:
    """That the log's head is signed and extends the one that was kept."""

    origin: str
    size: int
    root: bytes
    extends: int
    """Size of the kept head; 0 where none was kept, which proves no more than the signature."""


class Audit:
    """`client.audit`."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def list(self, query: Query = Query(), limit: int | None = None) -> Iterator[Entry]:
        """Entries by filter, oldest first.  Auditors."""
        stubs = self._session.connection

        def fetch(page: common_pb2.PageRequest) -> audit_pb2.ListEntriesResponse:
            request = audit_pb2.ListEntriesRequest(
                page=page, action=query.action, actor=query.actor, object_id=query.object_id
            )
            if query.since is not None:
                request.since.FromDatetime(query.since)
            if query.until is not None:
                request.until.FromDatetime(query.until)
            return stubs.call(stubs.audit.ListEntries, request)

        for answer in pages(fetch, limit):
            for data in answer.entries:
                yield Entry.parse(data)

    def export(self, path: str | Path) -> Verdict:
        """Write the whole log to one file, and verify it together with the head that this home keeps.

        Raises an EvidenceError where it does not verify; the file is kept, as evidence.
        """
        target = Path(path)
        # First the head that is kept, then the export: the other way round an honest log would look rolled back.
        roster = self._session.site.roster
        stubs = self._session.connection
        stream = messages(stubs.audit.ExportLog(audit_pb2.ExportLogRequest(), timeout=EXPORT_SECONDS))
        first = next(stream, None)
        if first is None or first.WhichOneof("part") != "checkpoint":
            raise ServerError("the export does not begin with its checkpoint; tell the administrator")
        write_export(target, first.checkpoint, _entries(stream))
        return verify_file(self._session.home, target, roster, None)

    def verify(self) -> LiveVerdict:
        """Check the live head: signed by the log's key, extending the head that this home kept.

        Raises SignatureError, RollbackError, ForkError.
        """
        view = self._session.site.refresh()
        return LiveVerdict(view.head.origin, view.head.size, view.head.root, view.extends)


def _entries(stream: Iterator[audit_pb2.ExportLogResponse]) -> Iterator[bytes]:
    for message in stream:
        if message.WhichOneof("part") != "entry":
            raise TruncatedError("the export holds a second checkpoint; start it again")
        yield message.entry


def verify_offline(home: Home, path: Path, now: int, since: Path | None) -> Verdict:
    """Verify an export without the site: with the roster and the head that this home keeps.

    `since` names a file with another remembered checkpoint (a signed note).  Raises an EvidenceError.
    """
    return verify_file(home, path, stored_roster(home, now), since)


def verify_file(home: Home, path: Path, roster: Roster, since: Path | None) -> Verdict:
    """Verify an export against the log key of a roster, the kept head and a brought one."""
    verifier = NoteVerifier.parse(roster.log_vkey)
    remembered: list[Checkpoint] = []
    if since is not None:
        remembered.append(open_checkpoint(since.read_bytes(), verifier, roster.log_origin))
    elif (kept := remembered_checkpoint(home.state())) is not None:
        remembered.append(kept)
    return verify_export(path, verifier, remembered)


def as_dict(verdict: Verdict | LiveVerdict) -> dict[str, object]:
    """For `--json`."""
    values = dataclasses.asdict(verdict)
    values["root"] = verdict.root.hex()
    return values
