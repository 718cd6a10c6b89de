# SPDX-License-Identifier: Apache-2.0
"""Sealed files without the control plane: for transport, backup, and a look inside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cloister.errors import HomeError, UsageError
from cloister.evidence.errors import EvidenceError
from cloister.evidence.manifest import ROWS_MEDIA_TYPE, Manifest, SealedObject, Trailer, verify_object
from cloister.evidence.roster import Roster
from cloister.evidence.signatures import Statement
from cloister.files import new_output
from cloister.formats.stream import check_rows
from cloister.home import Home
from cloister.push import trailer_for
from cloister.sealed.container import ContainerHeader, open_container, read_header, write_container
from cloister.sealed.keys import Identity, Recipient
from cloister.sealed.payload import SealedDigest
from cloister.session import DAY_SECONDS
from cloister.site import stored_roster


@dataclass(frozen=True)
class Terms:
    """What a manifest says of a dataset."""

    name: str
    purposes: tuple[str, ...]
    pool: str
    expires_days: int


@dataclass(frozen=True)
class Inspection:
    """What a sealed file says of itself, and whether its signature holds."""

    manifest: Manifest
    trailer: Trailer
    recipients: tuple[str, ...]
    """Key ids."""
    verdict: str
    """"verified", or why not; "not checked" without a roster."""


def seal_file(
    home: Home, source: Path, target: Path, terms: Terms, to: Sequence[str], *, object_id: str, now: int
) -> Manifest:
    """Seal a JSONL file to recipients, or to the pool's hosts and the team's recovery key.

    Works without the site, by the roster that was verified last.  Raises UsageError, RowsError.
    """
    roster = stored_roster(home, now)
    me = roster.person(home.pins().id)
    summary = check_rows(source)
    hosts = roster.pool_hosts(terms.pool, now)
    names = to or [*(host.sealing_recipient for host in hosts), roster.team(me.team).recovery_recipient]
    manifest = Manifest(
        kind="dataset",
        id=object_id,
        name=terms.name,
        owner=me.id,
        team=me.team,
        pool=terms.pool,
        purposes=terms.purposes,
        media_type=ROWS_MEDIA_TYPE,
        created_at=now,
        expires_at=now + terms.expires_days * DAY_SECONDS,
    )
    key = home.signing_key()

    def trailer(digest: SealedDigest) -> bytes:
        return trailer_for(manifest, digest, summary.rows).sign(key).to_bytes()

    if target.exists():
        raise UsageError(f"{target} exists already; name a new file")
    with source.open("rb") as file:
        write_container(target, manifest.to_payload(), file, [Recipient.parse(n) for n in names], trailer)
    return manifest


def open_file(home: Home, source: Path, target: Path, identity: Identity, *, now: int) -> Manifest:
    """Verify and open a sealed file into a new file; on any failure no file appears."""
    roster = stored_roster(home, now)

    def check(header: ContainerHeader) -> SealedDigest:
        trailer = _verified(header, roster, now)
        return SealedDigest(trailer.ciphertext_sha256, trailer.ciphertext_size, trailer.plaintext_size)

    with new_output(target) as sink:
        open_container(source, identity, sink, check=check)
    return Manifest.parse(read_header(source).manifest)


def inspect_file(home: Home, source: Path, *, now: int) -> Inspection:
    """Read everything of a sealed file but its payload; needs no key.  Raises SealedError, FormatError."""
    header = read_header(source)
    statement = Statement.from_bytes(header.trailer)
    try:
        _verified(header, stored_roster(home, now), now)
        verdict = "verified"
    except EvidenceError as error:
        verdict = f"refused: {error}"
    except HomeError:
        verdict = "not checked"
    recipients = tuple(wrap.recipient_key_id for wrap in header.wraps)
    return Inspection(Manifest.parse(header.manifest), Trailer.parse(statement.payload), recipients, verdict)


def read_identity(path: Path) -> Identity:
    """An AGE-SECRET-KEY-PQ-1… identity from a file.  Raises UsageError, KeyFormatError."""
    try:
        lines = path.read_text("ascii").split("\n")
    except (OSError, UnicodeDecodeError):
        raise UsageError(f"{path}: it cannot be read; name the file of an identity") from None
    secrets = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    if len(secrets) != 1:
        raise UsageError(f"{path}: it does not hold exactly one identity")
    return Identity.parse(secrets[0])


def _verified(header: ContainerHeader, roster: Roster, now: int) -> Trailer:
    sealed = SealedObject(header.manifest, Statement.from_bytes(header.trailer))
    return verify_object(sealed, roster, now=now).trailer
