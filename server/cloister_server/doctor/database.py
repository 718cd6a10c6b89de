# SPDX-License-Identifier: Apache-2.0
"""The database: whether it answers, its clock, its log, its roster, and the blobs that it names."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection, select

from cloister.evidence.errors import EvidenceError
from cloister.evidence.note import NoteVerifier
from cloister.evidence.roster import Roster
from cloister.evidence.signatures import Statement
from cloister.findings import Finding, failure, of_expiry, of_skew, ok, warning
from cloister_audit import fsck
from cloister_audit.errors import AuditError
from cloister_server.database import tables
from cloister_server.database.engine import now_ms
from cloister_server.doctor.files import WARN_SECONDS
from cloister_server.migrations.schema import standing
from cloister_server.registry.objects import DELETED, READY
from cloister_server.store import Declared, Store

SILENT_S = 24 * 3600
_NAMED = 5


def check_schema(connection: Connection) -> Iterable[Finding]:
    """That the database has a schema on which this program may run."""
    found = standing(connection)
    if found.fault and found.newer:
        yield failure(
            f"schema {found.found} takes no program of schema {found.newest}, which this version is",
            "install the newer version on this host, or restore the backup from before the upgrade",
        )
    elif found.fault:
        yield failure(f"schema {found.found or 'none'}, this version needs {found.newest}", "cloister-server migrate")
    elif found.newer:
        text = f"answers, schema {found.found}; this version knows {found.newest} and may go on"
        yield warning(text, "finish the upgrade: install the newer version on this host too")
    else:
        yield ok(f"answers, schema {found.found}")


def check_clock(connection: Connection, now: float) -> Iterable[Finding]:
    """This host's clock (Unix seconds) against the database's, by which leases are measured."""
    skew = connection.execute(select(now_ms(connection))).scalar_one() / 1000 - now
    yield of_skew("the database's clock", skew)


def check_log(connection: Connection, verifier: NoteVerifier, now: int, *, whole: bool) -> Iterable[Finding]:
    """Newest head against the log, the newest entries or all against their hashes, and whether it is signed at all."""
    try:
        if whole:
            yield ok(f"recomputed from its first entry: {fsck.check(connection, verifier)} entries")
        found = fsck.check_recent(connection, verifier)
    except AuditError as error:
        yield failure(str(error), "stop the server, run `cloister-audit fsck`, and tell an auditor; restore a backup")
        return
    if found.signed_size == 0:
        yield warning(f"{found.size} entries, none signed", "start the server, or let somebody ask for a checkpoint")
        return
    age = now - found.signed_at // 1_000_000
    text = (
        f"{found.size} entries, signed up to {found.signed_size}, {age / 3600:.1f} hours ago; {found.checked} re-hashed"
    )
    if found.size > found.signed_size and age > SILENT_S:
        yield warning(text, "nobody has asked for a checkpoint since: run `cloister audit verify` from a timer")
    else:
        yield ok(text)


def check_roster(connection: Connection, now: int) -> Iterable[Finding]:
    """How long the roster in force holds; `now` is Unix seconds."""
    stored = roster_in_force(connection)
    if stored is None:
        yield failure("no roster is in force", "start the server once with [site] roster_file")
        return
    try:
        roster = Roster.parse(Statement.from_bytes(stored).payload)
    except EvidenceError as error:
        yield failure(f"the stored roster is damaged: {error}", "restore a backup")
        return
    what = f"roster version {roster.version}"
    remedy = "have the custodian run: cloister-admin roster sign; then: cloister-admin roster publish"
    yield of_expiry(what, roster.expires_at - now, WARN_SECONDS, remedy)


def roster_in_force(connection: Connection) -> bytes | None:
    """The newest stored roster, or None."""
    query = select(tables.roster.c.statement).order_by(tables.roster.c.version.desc()).limit(1)
    stored: bytes | None = connection.execute(query).scalar_one_or_none()
    return stored


def check_blobs(connection: Connection, store: Store) -> Iterable[Finding]:
    """Every complete object has its blob in full size, and every blob an object."""
    stored = list(store.blobs())  # first, as in recovery: a blob without a row then is nobody's
    row = tables.sealed_object.c
    states: dict[str, str] = {}
    missing = []
    for found in connection.execute(select(row.id, row.state, row.ciphertext_sha256, row.size)):
        states[found.id] = found.state
        if found.state == READY and not store.is_complete(Declared(found.id, found.ciphertext_sha256, found.size)):
            missing.append(found.id)
    orphans = [blob.object_id for blob in stored if states.get(blob.object_id) in (None, DELETED)]
    if missing:
        yield failure(
            f"{len(missing)} objects have no blob: {_names(missing)}",
            "copy the blobs back from a backup, or have their owners push them again",
        )
    if orphans:
        yield warning(
            f"{len(orphans)} blobs belong to no object: {_names(orphans)}", "restart the server: it removes them"
        )
    if not missing and not orphans:
        yield ok(f"{len(stored)} blobs, each with its object")


def _names(ids: list[str]) -> str:
    more = f" and {len(ids) - _NAMED} more" if len(ids) > _NAMED else ""
    return ", ".join(sorted(ids)[:_NAMED]) + more
