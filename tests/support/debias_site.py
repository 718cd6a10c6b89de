# SPDX-License-Identifier: Apache-2.0
"""What a worker registers for a de-biasing job of a served site: a report, an export, and figures."""

from __future__ import annotations

from dataclasses import dataclass, replace

from cloister.api.v1 import workers_pb2
from cloister.evidence.manifest import BUNDLE_MEDIA_TYPE, Manifest
from cloister.evidence.result import Result
from cloister.evidence.signatures import Statement
from cloister.wire import sealed_to_proto
from debias_job import figures_of, sha256, verdict_metrics
from served_site import POOL, Founded
from site_objects import DAY, FILES, Made, Signed, artifact, artifact_request, new_id, seal


@dataclass(frozen=True)
class Found:
    """What one attempt made."""

    report: Made
    report_request: workers_pb2.CreateArtifactRequest
    export: Made
    result: Statement
    export_request: workers_pb2.CreateArtifactRequest
    figures: bytes


def found(founded: Founded, host: str, job: Signed, attempt: int = 1, verdict: str = "FAIL") -> Found:
    """An honest attempt, that ended with this verdict."""
    report = report_of(founded, host, job, attempt)
    signed = job.authorisation
    figures = figures_of(job.id, signed.spec_sha256, signed.policy_sha256, verdict, attempt=attempt).to_payload()
    export, plain = artifact(founded, host, job, attempt)
    result = replace(
        Result.parse(plain.payload),
        metrics=verdict_metrics(verdict),
        figures_sha256=sha256(figures),
        report_trailer_sha256=report.sealed.trailer.digest,
    ).sign(founded.hosts[host].signing)
    request = artifact_request(job, attempt, export, result)
    request.figures = figures
    return Found(report, report_request(job, attempt, report), export, result, request, figures)


def report_of(founded: Founded, host: str, job: Signed, attempt: int = 1, recipients: list[str] | None = None) -> Made:
    """A report of random bytes, for the member who signed the job and the team's recovery key."""
    signed = job.authorisation
    manifest = Manifest(
        kind="report",
        id=new_id(),
        name="report",
        owner=host,
        team=signed.team,
        pool=POOL,
        purposes=(signed.purpose,),
        media_type=BUNDLE_MEDIA_TYPE,
        created_at=founded.now,
        expires_at=founded.now + 30 * DAY,
        details={"job_id": job.id, "attempt": str(attempt), "step": "0", "files_sha256": FILES},
    )
    usual = [founded.people[signed.member].key_id, founded.recovery[signed.team].recipient.key_id]
    return seal(manifest, founded.hosts[host].signing, usual if recipients is None else recipients)


def report_request(job: Signed, attempt: int, report: Made) -> workers_pb2.CreateArtifactRequest:
    """As an agent registers it: with no result of its own."""
    return workers_pb2.CreateArtifactRequest(
        job_id=job.id,
        attempt=attempt,
        kind=workers_pb2.ARTIFACT_KIND_REPORT,
        sealed=sealed_to_proto(report.sealed),
        wraps=report.wrap_messages(),
    )
