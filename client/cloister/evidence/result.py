# SPDX-License-Identifier: Apache-2.0
"""Result statement: what a certified host says that a job produced: checkpoint, model or report."""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal

from cloister.evidence.canonical import JSON, canonical_bytes
from cloister.evidence.errors import BindingError, FormatError
from cloister.evidence.fields import Fields
from cloister.evidence.roster import Roster, verify_by
from cloister.evidence.signatures import SigningKey, Statement

RESULT_TYPE = "application/vnd.cloister.result+json"


@dataclass(frozen=True)
class Result:
    """What a host made and measured."""

    kind: str
    """state, export, or report: what a job that makes no version ends with."""
    job_id: str
    authorisation_sha256: str
    host: str
    attempt: int
    step: int
    object_id: str
    trailer_sha256: str
    files_sha256: str
    """Digest of the list of the files inside."""
    metrics: dict[str, str]
    """Held-out metrics after the job, decimals."""
    metrics_before: dict[str, str]
    sandboxed: bool
    created_at: int
    figures_sha256: str = ""
    """Of a de-biasing job's numbers (`cloister.evidence.figures`); left out for other jobs."""
    report_trailer_sha256: str = ""
    """Of a de-biasing job's sealed report; left out for other jobs."""

    def to_payload(self) -> bytes:
        metrics: dict[str, JSON] = dict(self.metrics)
        metrics_before: dict[str, JSON] = dict(self.metrics_before)
        bound = {"figures_sha256": self.figures_sha256, "report_trailer_sha256": self.report_trailer_sha256}
        return canonical_bytes(
            {
                "type": "result",
                "v": 1,
                "kind": self.kind,
                "job_id": self.job_id,
                "authorisation_sha256": self.authorisation_sha256,
                "host": self.host,
                "attempt": self.attempt,
                "step": self.step,
                "object_id": self.object_id,
                "trailer_sha256": self.trailer_sha256,
                "files_sha256": self.files_sha256,
                "metrics": metrics,
                "metrics_before": metrics_before,
                "sandboxed": self.sandboxed,
                "created_at": self.created_at,
                **{name: digest for name, digest in bound.items() if digest},
            }
        )

    @classmethod
    def parse(cls, payload: bytes) -> Result:
        """Raises FormatError."""
        fields = Fields.of_document("result", payload)
        result = cls(
            kind=fields.text("kind", choices=("state", "export", "report")),
            job_id=fields.identifier("job_id"),
            authorisation_sha256=fields.digest("authorisation_sha256"),
            host=fields.identifier("host"),
            attempt=fields.integer("attempt", minimum=1),
            step=fields.integer("step"),
            object_id=fields.identifier("object_id"),
            trailer_sha256=fields.digest("trailer_sha256"),
            files_sha256=fields.digest("files_sha256"),
            metrics=fields.decimals("metrics"),
            metrics_before=fields.decimals("metrics_before"),
            sandboxed=fields.boolean("sandboxed"),
            created_at=fields.time("created_at"),
            figures_sha256=fields.unless_absent("figures_sha256", fields.digest) or "",
            report_trailer_sha256=fields.unless_absent("report_trailer_sha256", fields.digest) or "",
        )
        fields.finish()
        return result

    def sign(self, key: SigningKey) -> Statement:
        return key.sign(RESULT_TYPE, self.to_payload())


def decimal_text(value: float) -> str:
    """A figure as signed documents carry it: the shortest decimal that reads back as the same double.

    Raises FormatError for infinities and NaN, which no document may carry.
    """
    if not math.isfinite(value):
        raise FormatError("a metric in a signed document must be finite")
    return format(Decimal(repr(value)), "f")


def verify_result(statement: Statement, roster: Roster, *, kind: str, authorisation_sha256: str, now: int) -> Result:
    """Check that a host of the roster made this result of this very authorisation.

    Raises FormatError, SignatureError, RosterError, ExpiredError, BindingError.
    """
    result = Result.parse(statement.payload)
    host = roster.host(result.host)
    verify_by(statement, RESULT_TYPE, host.signing_keys, f"host {host.id}", signed_at=result.created_at, now=now)
    if result.kind != kind:
        raise BindingError(f"expected a result of kind {kind}, got {result.kind}")
    if result.authorisation_sha256 != authorisation_sha256:
        raise BindingError(f"the {kind} of job {result.job_id} was made under another authorisation")
    return result
