# SPDX-License-Identifier: Apache-2.0
"""What a de-biasing job makes: a specification, a report's bundle, and figures that say a verdict."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import replace

from builders import Job
from cloister.evidence.figures import VERDICTS, Figure, Figures, Finding
from cloister.reports import PAGE_START
from cloister.sealed.bundle import write_bundle

METHOD: dict[str, object] = {
    "debias": {
        "task": "classifier",
        "axes": ["gender"],
        "mitigation": {"name": "counterfactual", "settings": {"replay": 0.25}},
        "measures": ["flip_rate", "equalized_odds"],
        "primary": ["flip_rate"],
        "utilities": ["accuracy"],
    }
}
PAGE = PAGE_START + b"<title>De-biasing report</title></head><body>CANARY women</body></html>\n"
HEADLINE = ["The candidate failed the gate.", "women: 0.25 before, 0.04 after"]
FIGURE = Figure(
    run=0,
    kind="measure",
    index=0,
    axis=0,
    group=0,
    items=400,
    clusters=200,
    values={"before": "0.25", "after": "0.04", "change": "-0.21", "change_low": "-0.26", "change_high": "-0.16"},
)
FINDING = Finding(run=0, rule="level", verdict="FAIL", kind="measure", index=0, axis=0)


def report_files(verdict: str = "FAIL") -> dict[str, bytes]:
    """A page and its data, as a trainer makes them."""
    data = {"verdict": verdict, "headline": HEADLINE}
    return {"report.html": PAGE, "report.json": json.dumps(data).encode()}


def report_bundle(files: dict[str, bytes] | None = None) -> bytes:
    """The files of a report as a trainer hands them over."""
    sink = io.BytesIO()
    write_bundle(sorted((files or report_files()).items()), sink)
    return sink.getvalue()


def figures_of(
    job_id: str, spec_sha256: str, policy_sha256: str, *verdicts: str, attempt: int = 1, **changes: object
) -> Figures:
    """Figures of a job; `changes` are fields of the document."""
    made = Figures(job_id, spec_sha256, policy_sha256, attempt, (FIGURE,), (FINDING,), verdicts or ("FAIL",))
    return replace(made, **changes)  # type: ignore[arg-type]  # a test names real fields


def figures_for(job: Job, *verdicts: str, attempt: int = 1, **changes: object) -> Figures:
    """The same for a job of `builders.Site`."""
    signed = job.authorisation
    made = figures_of(signed.job_id, signed.spec_sha256, signed.policy_sha256, *verdicts, attempt=attempt)
    return replace(made, **changes)  # type: ignore[arg-type]  # a test names real fields


def verdict_metrics(verdict: str) -> dict[str, str]:
    """Signed metrics of a result with this verdict."""
    return {"eval_accuracy": "0.9", "debias_verdict": f"{VERDICTS[verdict]}.0"}


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
