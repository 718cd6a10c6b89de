# SPDX-License-Identifier: Apache-2.0
"""The numbers of a de-biasing job, from the trainer's messages to the document that auditors read."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from cloister.api.v1 import workers_pb2
from cloister.evidence import figures as signed
from cloister.evidence.errors import FormatError
from cloister_workers.agent.errors import JobFault
from cloister_workers.messages import Figure, Finding, Judged
from cloister_workers.words import FigureName

TOO_MUCH = "the trainer reported more figures than a job may, or in another order; it was ended"


@dataclass
class FigureBook:
    """What one attempt has measured and judged so far."""

    job_id: str
    spec_sha256: str
    policy_sha256: str
    attempt: int
    figures: list[signed.Figure] = field(default_factory=list)
    findings: list[signed.Finding] = field(default_factory=list)
    verdicts: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, job: workers_pb2.JobLease) -> FigureBook:
        """For the attempt of a lease."""
        spec, policy = hashlib.sha256(job.spec), hashlib.sha256(job.policy.payload)
        return cls(job.job_id, spec.hexdigest(), policy.hexdigest(), job.attempt)

    def add(self, message: Figure | Finding | Judged) -> None:
        """Take a message.  Raises JobFault for more than may be said, or for a verdict out of order."""
        if len(self.figures) + len(self.findings) + len(self.verdicts) >= signed.MAX_ENTRIES:
            raise JobFault("PROTOCOL", TOO_MUCH)
        match message:
            case Figure():
                self.figures.append(_figure(message))
            case Finding():
                self.findings.append(_finding(message))
            case Judged():
                if message.run != len(self.verdicts):
                    raise JobFault("PROTOCOL", TOO_MUCH)
                self.verdicts.append(message.verdict.value)

    def payload(self) -> bytes:
        """The document, or nothing where nothing was measured.  Raises JobFault for one that is too long."""
        if not self.figures and not self.findings and not self.verdicts:
            return b""
        found = (tuple(self.figures), tuple(self.findings), tuple(self.verdicts))
        try:
            return signed.Figures(self.job_id, self.spec_sha256, self.policy_sha256, self.attempt, *found).to_payload()
        except FormatError:
            raise JobFault("PROTOCOL", TOO_MUCH) from None


def _figure(message: Figure) -> signed.Figure:
    return signed.Figure(
        run=message.run,
        kind=message.kind.value,
        index=message.index,
        axis=message.axis,
        group=message.group,
        items=message.items,
        clusters=message.clusters,
        values=_texts(message.values),
    )


def _finding(message: Finding) -> signed.Finding:
    return signed.Finding(
        run=message.run,
        rule=message.rule.value,
        verdict=message.verdict.value,
        kind=message.kind.value,
        index=message.index,
        axis=message.axis,
    )


def _texts(values: Mapping[FigureName, float]) -> dict[str, str]:
    return {name.value: signed.figure_text(value) for name, value in values.items()}
