# SPDX-License-Identifier: Apache-2.0
"""Pull: a released version becomes a folder on its recipient's machine, whole and proven, or nothing at all.

The control plane hands over everything here and is believed in nothing.  Steps:
(1) the version is the result that a certified host signed for a job that a member signed (`cloister.lineage`);
(2) the release answers a request of a member, for exactly this object, to this person's key, signed by a host;
(3) the wrap is the one that the host released; it opens with this home's identity only;
(4) the ciphertext has the digest and the size of the signed trailer, the files have the digest of the result.
Only after (4) the folder gets its name.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from cloister.api.v1 import models_pb2
from cloister.errors import UsageError
from cloister.evidence.errors import BindingError, TamperedError
from cloister.evidence.manifest import VerifiedObject
from cloister.evidence.release import verify_release, verify_request
from cloister.lineage import Lineage, verify_result_version
from cloister.pipes import join
from cloister.releases import Releases
from cloister.sealed.bundle import read_bundle
from cloister.sealed.errors import SealedError
from cloister.sealed.filelist import FileDigest, check_model_file, list_digest
from cloister.sealed.keys import Identity, unwrap
from cloister.sealed.payload import open_stream
from cloister.session import Session
from cloister.upload import Progress, fetch_blob
from cloister.wire import statement_from_proto


def pull(
    session: Session,
    releases: Releases,
    version: models_pb2.ModelVersion,
    asked: str,
    destination: Path,
    progress: Progress,
) -> Path:
    """Verify, fetch, open and unpack.

    Raises UsageError where the destination exists, an EvidenceError or SealedError where a check fails.
    """
    check_free(destination)
    # (1) Which object.
    lineage = verify_result_version(session, version, asked)
    # (2) and (3) Who may open it.
    dek = released_key(session, releases.granted_to_me(version.id), lineage)
    # (4) Are the bytes the ones signed for.
    found = lineage.object
    ciphertext = session.home.cache / f"{found.trailer.ciphertext_sha256}.payload"
    fetch_blob(session.connection, found.manifest.id, ciphertext, found.trailer.ciphertext_size, progress)
    try:
        unpack(ciphertext, found, lineage.result.files_sha256, dek, destination)
    except SealedError:
        ciphertext.unlink()  # Damaged bytes must not be taken up again by the next run.
        raise
    ciphertext.unlink()
    return destination


def check_free(destination: Path) -> None:
    """Raise UsageError unless a new folder can be made there."""
    if destination.exists():
        raise UsageError(f"{destination} exists already; name a new folder")
    if not destination.parent.is_dir():
        raise UsageError(f"{destination.parent} is not a folder; make it first")


def released_key(session: Session, release: models_pb2.Release, lineage: Lineage) -> bytes:
    """The data key, once the release is proven to be of this object and to this person.

    Raises an EvidenceError, SealedError.
    """
    roster, now = session.site.roster, session.clock()
    me = session.site.me()
    identity = Identity.parse(session.home.recipient_secret())
    request_statement = statement_from_proto(release.request)
    statement = statement_from_proto(release.statement)
    made = verify_release(
        statement,
        request_statement,
        release.wrap.wrap,
        roster,
        recipient_key_id=identity.recipient.key_id,
        now=now,
    )
    # A request may expire after it was granted: what counts is the time that the host signed.
    request = verify_request(request_statement, roster, now=made.created_at)
    found = lineage.object
    if made.result_sha256 != lineage.result_sha256 or request.result_sha256 != lineage.result_sha256:
        raise BindingError("the release is of another result; the control plane may have swapped it")
    if not made.trailer_sha256 == request.trailer_sha256 == found.trailer_sha256:
        raise BindingError("the release is of another sealed object; the control plane may have swapped it")
    if request.model_version != lineage.authorisation.job_id or request.recipient != me.id:
        raise BindingError("the release is of another version, or to another person")
    if not made.policy_sha256 == request.policy_sha256 == lineage.authorisation.policy_sha256:
        raise BindingError("the release was made under another policy than the job was signed under")
    return unwrap(release.wrap.wrap, identity, found.context)


def unpack(
    ciphertext: Path,
    found: VerifiedObject,
    files_sha256: str,
    dek: bytes,
    destination: Path,
    allow: Callable[[str], None] = check_model_file,
    check: Callable[[Path], None] | None = None,
) -> None:
    """Into a private folder beside the destination, renamed at the end; on any failure it vanishes.

    `allow` refuses names of files, `check` looks at the whole folder before it is renamed; both by raising.
    """
    temporary = destination.with_name(f".{destination.name}.{os.urandom(6).hex()}.partial")
    temporary.mkdir(mode=0o700)
    try:
        digests = _open_into(ciphertext, found, dek, temporary, allow)
        _check_files(digests, files_sha256)
        if check is not None:
            check(temporary)
        temporary.rename(destination)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _open_into(
    ciphertext: Path, found: VerifiedObject, dek: bytes, folder: Path, allow: Callable[[str], None]
) -> tuple[FileDigest, ...]:
    trailer = found.trailer
    sha256, size = trailer.ciphertext_sha256, trailer.ciphertext_size
    with ciphertext.open("rb") as source:
        _, digests = join(
            lambda sink: open_stream(source, sink, dek, found.context, expected_sha256=sha256, expected_size=size),
            lambda plain: read_bundle(plain, folder, allow=allow),
        )
    return digests


def _check_files(digests: tuple[FileDigest, ...], files_sha256: str) -> None:
    if list_digest(digests) != files_sha256:
        raise TamperedError("the files are not those that the host signed for; nothing was kept")
