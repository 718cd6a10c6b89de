# SPDX-License-Identifier: Apache-2.0
"""Sealing into the spool and sending from there: the way of every dataset and base model to the store.

Order: (1) seal to a new file of the spool, complete or not there; (2) register it; (3) send its payload from
where the store stands; (4) remove the spool file.  A crash anywhere leaves what the next run of the same command
finds again by its key: nothing is sealed or sent twice, and no second object appears.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cloister.api.v1 import common_pb2
from cloister.errors import StorageError, UploadError, UsageError
from cloister.evidence.canonical import JSON, canonical_bytes, sha256_hex
from cloister.evidence.errors import EvidenceError
from cloister.evidence.manifest import Manifest, SealedObject, Trailer, verify_object
from cloister.evidence.signatures import Statement
from cloister.sealed.container import ContainerHeader, read_header, write_container
from cloister.sealed.errors import SealedError
from cloister.sealed.keys import Recipient
from cloister.sealed.payload import SealedDigest
from cloister.sealed.window import ByteSource
from cloister.session import Session
from cloister.upload import Progress, send_blob
from cloister.wire import sealed_to_proto


@dataclass(frozen=True)
class Spooled:
    """A sealed object in the spool, whole and signed."""

    path: Path
    manifest: Manifest
    sealed: SealedObject
    header: ContainerHeader

    @property
    def message(self) -> common_pb2.SealedObject:
        return sealed_to_proto(self.sealed)

    @property
    def wraps(self) -> list[common_pb2.Wrap]:
        return [common_pb2.Wrap(recipient_key_id=w.recipient_key_id, wrap=w.wrap) for w in self.header.wraps]


class MeasuredSource:
    """A byte source that hashes and reports what passes."""

    def __init__(self, source: ByteSource, total: int, progress: Progress) -> None:
        self._source = source
        self._total = total
        self._progress = progress
        self._done = 0
        self.digest = hashlib.sha256()

    def readinto(self, buffer: bytearray | memoryview, /) -> int:
        count = int(self._source.readinto(buffer) or 0)
        self.digest.update(memoryview(buffer)[:count])
        self._done += count
        self._progress(self._done, self._total)
        return count


def spool_key(**parts: JSON) -> str:
    """Name of a piece of work: equal arguments find the same spool file."""
    return sha256_hex(canonical_bytes(parts))


def find_spooled(session: Session, key: str, recipients: Sequence[Recipient]) -> Spooled | None:
    """What an interrupted run left, if it still serves; what does not is removed."""
    path = _path(session, key)
    if not path.exists():
        return None
    try:
        found = read_spooled(path)
        verify_object(found.sealed, session.site.roster, now=session.clock())
    except (SealedError, EvidenceError):
        path.unlink()
        return None
    if [wrap.recipient_key_id for wrap in found.header.wraps] != [r.key_id for r in recipients]:
        path.unlink()  # Hosts have come or gone since: sealed anew, for those of today.
        return None
    return found


def read_spooled(path: Path) -> Spooled:
    """Raises SealedError or EvidenceError where the file is not what a run left."""
    header = read_header(path)
    sealed = SealedObject(header.manifest, Statement.from_bytes(header.trailer))
    return Spooled(path, Manifest.parse(header.manifest), sealed, header)


def seal_to_spool(
    session: Session,
    key: str,
    manifest: Manifest,
    source: ByteSource,
    recipients: Sequence[Recipient],
    trailer: Callable[[SealedDigest], Trailer],
) -> Spooled:
    """Seal a source under a manifest, with the trailer signed by this home.

    `trailer` may refuse by raising: then no file appears.
    """
    path = _path(session, key)
    signing_key = session.home.signing_key()

    def signed(digest: SealedDigest) -> bytes:
        return trailer(digest).sign(signing_key).to_bytes()

    try:
        write_container(path, manifest.to_payload(), source, recipients, signed)
    except OSError as error:
        raise StorageError(f"cannot seal into {path.parent}: {error.strerror}; free space and run it again") from None
    return read_spooled(path)


def trailer_for(manifest: Manifest, digest: SealedDigest, rows: int | None) -> Trailer:
    """What is signed about a payload."""
    return Trailer(
        manifest_sha256=sha256_hex(manifest.to_payload()),
        ciphertext_sha256=digest.ciphertext_sha256,
        ciphertext_size=digest.ciphertext_size,
        plaintext_size=digest.plaintext_size,
        rows=rows,
    )


def send_spooled(session: Session, spooled: Spooled, progress: Progress) -> None:
    """Send the payload of a registered object, and remove the spool file once the store has verified it."""
    header = spooled.header
    try:
        send_blob(
            session.connection,
            spooled.manifest.id,
            spooled.path,
            header.payload_offset,
            header.payload_size,
            progress,
        )
    except UploadError as error:
        if error.reason == "DIGEST_MISMATCH":
            _check_spool(spooled)
        raise
    spooled.path.unlink()


def _check_spool(spooled: Spooled) -> None:
    """After a wrong digest: was it this disk?  Then the next run must seal anew."""
    digest = hashlib.sha256()
    with spooled.path.open("rb") as file:
        file.seek(spooled.header.payload_offset)
        left = spooled.header.payload_size
        while left and (data := file.read(min(left, 1 << 20))):
            digest.update(data)
            left -= len(data)
    if digest.hexdigest() != Trailer.parse(spooled.sealed.trailer.payload).ciphertext_sha256:
        spooled.path.unlink()
        raise UploadError("the sealed file was damaged on this machine; run the command again to seal it anew")


def changed(name: str) -> UsageError:
    """For a source that is not what was checked before."""
    return UsageError(f"{name} changed while it was sealed; nothing was sent, run the command again")


def _path(session: Session, key: str) -> Path:
    return session.home.spool / f"{key}.sealed"
