# SPDX-License-Identifier: Apache-2.0
"""What a job found: figures that anybody allowed may verify, and a report that only its team can open.

A de-biasing job has both, beside its model.  An evaluation or inference job ends with its report, and what it measured
stands in the result that its host signed.

The control plane hands over everything here and is believed in nothing.  Steps:
(1) the job is the one that was asked for, signed by a member, with the specification that they signed;
(2) a certified host of the job's pool signed its result, which binds the figures and the report;
(3) the figures have that digest, are of this very job and say the verdict that the result says;
(4) the report is the object that the result binds, sealed by that host; its wrap opens with this identity only;
(5) the page is one that makes a browser fetch nothing and run nothing.
Only after (5) the folder gets its name.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cloister.api.v1 import common_pb2, jobs_pb2
from cloister.errors import RefusedError
from cloister.evidence.authorisation import Authorisation, verify_authorisation_signature
from cloister.evidence.canonical import sha256_hex
from cloister.evidence.errors import BindingError, TamperedError
from cloister.evidence.figures import Figures, verify_figures
from cloister.evidence.manifest import VerifiedObject, verify_object
from cloister.evidence.methods import INFERENCE, report_method
from cloister.evidence.result import Result, verify_result
from cloister.evidence.signatures import Statement
from cloister.pull import check_free, unpack
from cloister.sealed.errors import SealedError
from cloister.sealed.filelist import REPORT_FILES, check_predictions_file, check_report_file
from cloister.sealed.keys import Identity, unwrap
from cloister.session import Session
from cloister.spec import Spec, from_bytes
from cloister.upload import Progress, fetch_blob
from cloister.wire import sealed_from_proto, statement_from_proto

PAGE, DATA = REPORT_FILES
FIGURES, RESULT, AUTHORISATION, SPEC = "figures.json", "result.dsse", "authorisation.dsse", "spec.json"
"""Names under which the evidence of figures is kept."""
PAGE_START = b"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
"""
"""How every page begins: what follows can only tighten this policy, and a browser fetches nothing and runs nothing."""
_NEVER = (b"<script", b"<iframe", b"<object", b"<embed", b"<form", b"<link", b"<base", b"<meta")


@dataclass(frozen=True)
class SealedReport:
    """The report as it is stored, verified; for members of the team."""

    object: VerifiedObject
    wraps: dict[str, bytes]
    """Recipient key id to wrap."""


@dataclass(frozen=True)
class JobReport:
    """What a job found, verified."""

    authorisation: Authorisation
    signed: Statement
    """The authorisation as the member signed it."""
    spec_bytes: bytes
    spec: Spec
    result: Result
    statement: Statement
    """The signed result."""
    figures: Figures | None
    """Of a de-biasing job; None for an evaluation or inference job."""
    payload: bytes
    """The figures as they are bound by the result; empty where there are none."""
    sealed: SealedReport | None
    """None for an auditor of another team."""

    @property
    def method(self) -> str:
        """Evaluation or inference; empty for a de-biasing job."""
        return report_method(self.spec_bytes)


def fetch_report(session: Session, job_id: str) -> JobReport:
    """Steps (1) to (4), without opening anything.

    Raises NotFoundError for a job without a report, an EvidenceError where a check fails.
    """
    stubs, roster, now = session.connection, session.site.roster, session.clock()
    # (1) Which job.
    job = stubs.call(stubs.jobs.GetJob, jobs_pb2.GetJobRequest(id=job_id)).job
    signed = statement_from_proto(job.authorisation)
    authorisation = verify_authorisation_signature(signed, roster, now=now)
    if authorisation.job_id != job_id or sha256_hex(job.spec) != authorisation.spec_sha256:
        raise BindingError(f"job {job_id}: the control plane shows another job than {authorisation.member} signed")
    # (2) What its host said.
    answer = stubs.call(stubs.jobs.GetJobReport, jobs_pb2.GetJobReportRequest(id=job_id))
    statement = statement_from_proto(answer.result)
    kind = "report" if report_method(job.spec) else "export"
    result = verify_result(statement, roster, kind=kind, authorisation_sha256=signed.digest, now=now)
    if result.job_id != job_id or roster.host(result.host).pool != authorisation.pool:
        raise BindingError(f"job {job_id}: the result is of another job, or by a host that was not certified for it")
    # (3) The numbers.
    figures = verify_figures(answer.figures, result, authorisation) if kind == "export" else None
    payload = b"" if figures is None else answer.figures
    # (4) The report.
    sealed = None
    if answer.HasField("sealed"):
        sealed = _verified(session, answer, result, authorisation)
    spec = from_bytes(job.spec)
    return JobReport(authorisation, signed, job.spec, spec, result, statement, figures, payload, sealed)


def _verified(
    session: Session, answer: jobs_pb2.GetJobReportResponse, result: Result, authorisation: Authorisation
) -> SealedReport:
    found = verify_object(sealed_from_proto(answer.sealed), session.site.roster, now=session.clock())
    manifest = found.manifest
    ends_with_it = result.kind == "report"
    if found.trailer_sha256 != (result.trailer_sha256 if ends_with_it else result.report_trailer_sha256):
        raise BindingError(f"job {result.job_id}: the report is not the one that host {result.host} signed for")
    said = (manifest.kind, manifest.owner, manifest.team, manifest.details.get("job_id"))
    if said != ("report", result.host, authorisation.team, result.job_id):
        raise BindingError(f"job {result.job_id}: the sealed object is not a report of this job")
    if ends_with_it and (manifest.id, manifest.details.get("files_sha256")) != (result.object_id, result.files_sha256):
        raise BindingError(f"job {result.job_id}: the sealed object is not the one that the result names")
    return SealedReport(found, _wraps(answer.wraps))


def _wraps(wraps: Iterable[common_pb2.Wrap]) -> dict[str, bytes]:
    return {wrap.recipient_key_id: wrap.wrap for wrap in wraps}


def open_report(session: Session, report: JobReport, identity: Identity, folder: Path, progress: Progress) -> Path:
    """Fetch, open and unpack the report of a team's job into a new folder.

    Raises UsageError where the folder exists, RefusedError where it is not sealed to this identity, an EvidenceError
    or SealedError where a check fails.
    """
    check_free(folder)
    sealed, signed = report.sealed, report.authorisation
    wrap = None if sealed is None else sealed.wraps.get(identity.recipient.key_id)
    if sealed is None or wrap is None:
        raise RefusedError(
            f"the report of job {signed.job_id} is sealed to {signed.member} and to the recovery key of team "
            f"{signed.team}, not to this identity; ask one of them, or read its figures with --numeric"
        )
    found = sealed.object
    dek = unwrap(wrap, identity, found.context)
    ciphertext = session.home.cache / f"{found.trailer.ciphertext_sha256}.payload"
    fetch_blob(session.connection, found.manifest.id, ciphertext, found.trailer.ciphertext_size, progress)
    try:
        allow, check = (check_predictions_file, None) if report.method == INFERENCE else (check_report_file, check_page)
        unpack(ciphertext, found, found.manifest.details["files_sha256"], dek, folder, allow, check)
    except (SealedError, TamperedError):
        ciphertext.unlink()  # Damaged bytes must not be taken up again by the next run.
        raise
    ciphertext.unlink()
    return folder


def check_page(folder: Path) -> None:
    """Raise TamperedError unless the page in a folder keeps to itself: it was made where the rows were read."""
    if sorted(path.name for path in folder.iterdir()) != sorted(REPORT_FILES):
        raise TamperedError("the report lacks one of its files; nothing was kept")
    page = (folder / PAGE).read_bytes()
    start, rest = page[: len(PAGE_START)], page[len(PAGE_START) :].lower()
    if start != PAGE_START or any(tag in rest for tag in _NEVER):
        raise TamperedError("the report's page could fetch or run something, which no report does; nothing was kept")


def keep_figures(report: JobReport, folder: Path) -> None:
    """Write the figures and all that proves them into a new folder, byte for byte as signed: evidence to keep.

    The result holds the digest of the figures and of the authorisation, which holds that of the specification.
    Raises UsageError where the folder exists.
    """
    check_free(folder)
    documents = {RESULT: report.statement.to_bytes(), AUTHORISATION: report.signed.to_bytes(), SPEC: report.spec_bytes}
    folder.mkdir(mode=0o700)
    figures = {FIGURES: report.payload} if report.payload else {}
    for name, data in {**figures, **documents}.items():
        (folder / name).write_bytes(data)
