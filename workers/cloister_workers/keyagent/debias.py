# SPDX-License-Identifier: Apache-2.0
"""What a job may and must bring before its result is signed, by the method that its member signed.

A de-biasing job brings a report, its figures and the gate's word; an evaluation or inference job ends with its report.

The release gate reads the word out of the signed result, so a result that leaves it out, or says another word than the
figures that auditors read, is never signed.  A job of another kind may bring none of them.  What ends with a report
makes no export: it would be a version that no rule of release was written for.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from cloister.evidence.errors import FormatError
from cloister.evidence.figures import Figures, verdict_of
from cloister.evidence.methods import report_method
from cloister.evidence.opening import ApprovedJob
from cloister_workers.keyagent.errors import ResultError


def is_debias(spec: bytes) -> bool:
    """Whether a signed specification asks for de-biasing."""
    method = json.loads(spec).get("method")
    return isinstance(method, dict) and "debias" in method


@dataclass(frozen=True)
class Bound:
    """Digests that a result holds beside that of its model; both empty for other jobs."""

    figures_sha256: str = ""
    report_trailer_sha256: str = ""


@dataclass(frozen=True)
class Evidence:
    """Of one session."""

    wanted: bool
    """Whether the member signed a de-biasing job."""
    ending: str = ""
    """evaluation or inference, where the job ends with its report."""
    reports: list[str] = field(default_factory=list)
    """Digests of the trailers of the reports that were sealed."""

    @classmethod
    def of(cls, spec: bytes) -> Evidence:
        """For the job of a signed specification."""
        return cls(is_debias(spec), report_method(spec))

    def check_report(self, metrics: Mapping[str, str]) -> None:
        """Raises ResultError unless the job may bring a report with these metrics now."""
        if not self.wanted and not self.ending:
            raise ResultError("only a de-biasing, evaluation or inference job has a report")
        if verdict_of(metrics) is not None:
            raise ResultError("the gate's verdict comes with a de-biasing job's model")
        if self.reports:
            raise ResultError("the job has brought its report already")

    def check_export(self, approved: ApprovedJob, attempt: int, metrics: Mapping[str, str], figures: bytes) -> Bound:
        """What the result binds.  Raises ResultError where something is missing, foreign or contradicts itself."""
        if self.ending:
            raise ResultError(f"a job of method {self.ending} makes no version: it ends with its report")
        said = verdict_of(metrics)
        if not self.wanted:
            if said is not None or figures:
                raise ResultError("only a de-biasing job has figures and a verdict")
            return Bound()
        if said is None or not figures or len(self.reports) != 1:
            raise ResultError("a de-biasing job brings one report, its figures and the gate's verdict with its model")
        try:
            found = Figures.parse(figures)
        except FormatError as error:
            raise ResultError(f"the figures are malformed: {error}") from None
        signed = approved.authorisation
        wanted = (signed.job_id, signed.spec_sha256, signed.policy_sha256, attempt, said)
        if wanted != (found.job_id, found.spec_sha256, found.policy_sha256, found.attempt, found.verdict):
            raise ResultError("the figures are of another job or attempt, or say another verdict than the result")
        return Bound(hashlib.sha256(figures).hexdigest(), self.reports[0])
