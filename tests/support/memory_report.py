# SPDX-License-Identifier: Apache-2.0
"""The report of a de-biasing job at a site in memory, sealed as its host would; a test makes it hostile."""

from __future__ import annotations

import dataclasses
import io
import json
from dataclasses import dataclass

from cloister.api.v1 import common_pb2, jobs_pb2
from cloister.evidence.authorisation import Authorisation
from cloister.evidence.manifest import BUNDLE_MEDIA_TYPE, Manifest, context
from cloister.evidence.result import Result
from cloister.evidence.roster import Roster
from cloister.push import trailer_for
from cloister.sealed import keys
from cloister.sealed.bundle import write_bundle
from cloister.sealed.filelist import list_digest
from cloister.sealed.keys import Recipient
from cloister.sealed.payload import generate_dek, seal_stream
from cloister.wire import statement_to_proto
from debias_job import METHOD, figures_of, report_files, sha256, verdict_metrics
from memory_site import MemorySite
from set_clock import NOW


@dataclass
class Report:
    """What GetJobReport answers, for each person; tests change it."""

    answer: jobs_pb2.GetJobReportResponse
    authorisation: Authorisation
    result: Result

    def sign(self, site: MemorySite, **changes: object) -> None:
        """Have the host sign another result."""
        self.result = dataclasses.replace(self.result, **changes)  # type: ignore[arg-type]  # fields of the statement
        self.answer.result.CopyFrom(statement_to_proto(self.result.sign(site.host_key)))


def submitted(site: MemorySite, spec: dict[str, object]) -> str:
    """The id of a de-biasing job that anna has signed."""
    job = site.client().jobs.submit(spec)
    stored = site.jobs[job.id]
    data = json.dumps({**json.loads(stored.spec), "method": METHOD}, sort_keys=True, separators=(",", ":")).encode()
    signed = dataclasses.replace(Authorisation.parse(stored.authorisation.payload), spec_sha256=sha256(data))
    statement = signed.sign(site.homes["anna"].signing_key())
    stored.spec, stored.spec_digest = data, signed.spec_sha256
    stored.authorisation.CopyFrom(statement_to_proto(statement))
    return job.id


def finish_with_report(
    site: MemorySite, job_id: str, verdict: str = "FAIL", files: dict[str, bytes] | None = None, **changes: object
) -> Report:
    """End a job with this verdict; its report is sealed to its member and to the recovery key of the team.

    `changes` are fields of the report's manifest.
    """
    version = site.finish_job(job_id)
    signed = Authorisation.parse(site.jobs[job_id].authorisation.payload)
    bundle, ciphertext, dek = io.BytesIO(), io.BytesIO(), generate_dek()
    files_sha256 = list_digest(write_bundle(sorted((files or report_files(verdict)).items()), bundle))
    manifest = dataclasses.replace(_manifest(signed, files_sha256), **changes)  # type: ignore[arg-type]
    bound_to = context(manifest.to_payload())
    bundle.seek(0)
    digest = seal_stream(bundle, ciphertext, dek, bound_to)
    trailer = trailer_for(manifest, digest, None).sign(site.host_key)
    figures = figures_of(job_id, signed.spec_sha256, signed.policy_sha256, verdict).to_payload()
    answer = jobs_pb2.GetJobReportResponse(
        figures=figures,
        object_id=manifest.id,
        sealed=common_pb2.SealedObject(manifest=manifest.to_payload(), trailer=statement_to_proto(trailer)),
        size=digest.ciphertext_size,
        wraps=[
            common_pb2.Wrap(recipient_key_id=item.key_id, wrap=keys.wrap(dek, item, bound_to))
            for item in _recipients(site, signed)
        ],
    )
    site.blobs[manifest.id] = bytearray(ciphertext.getvalue())
    result = Result.parse(version.dossier.result.payload)
    report = Report(answer, signed, result)
    report.sign(
        site, metrics=verdict_metrics(verdict), figures_sha256=sha256(figures), report_trailer_sha256=trailer.digest
    )
    version.dossier.result.CopyFrom(answer.result)
    site.channel.handlers["GetJobReport"] = lambda _: report.answer
    return report


def end_with_report(site: MemorySite, job_id: str, files: dict[str, bytes], **changes: object) -> Report:
    """End an evaluation or inference job with these files; `changes` are fields of the result."""
    report = finish_with_report(site, job_id, files=files)
    manifest, trailer = report.answer.sealed.manifest, report.answer.sealed.trailer
    report.answer.figures = b""
    fields: dict[str, object] = {
        "kind": "report",
        "step": 0,
        "object_id": report.answer.object_id,
        "trailer_sha256": sha256(trailer.payload),
        "files_sha256": Manifest.parse(manifest).details["files_sha256"],
        "metrics": {"eval_accuracy": "0.75"},
        "metrics_before": {"eval_accuracy": "0.25"},
        "figures_sha256": "",
        "report_trailer_sha256": "",
    }
    report.sign(site, **{**fields, **changes})
    return report


def for_auditors(report: Report) -> None:
    """From now on the site answers as it does to an auditor."""
    for name in ("sealed", "object_id", "size", "wraps"):
        report.answer.ClearField(name)


def _recipients(site: MemorySite, signed: Authorisation) -> list[Recipient]:
    roster = Roster.parse(site.roster.payload)
    names = (roster.person(signed.member).recipient, roster.team(signed.team).recovery_recipient)
    return [Recipient.parse(name) for name in names]


def _manifest(signed: Authorisation, files_sha256: str) -> Manifest:
    return Manifest(
        kind="report",
        id=f"d{signed.job_id[1:]}",
        name="report",
        owner="gpu-1",
        team=signed.team,
        pool="default",
        purposes=(signed.purpose,),
        media_type=BUNDLE_MEDIA_TYPE,
        created_at=NOW,
        expires_at=NOW + 10**8,
        details={"job_id": signed.job_id, "attempt": "1", "step": "0", "files_sha256": files_sha256},
    )
