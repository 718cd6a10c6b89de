# SPDX-License-Identifier: Apache-2.0
"""The documents of an opening as they stand in a request: every byte string in base64, nothing made anew."""

from __future__ import annotations

from collections.abc import Mapping

from cloister.evidence.manifest import SealedObject
from cloister.evidence.opening import JobOpening, LogEvidence, ReleaseOpening, Resume
from cloister.evidence.signatures import Statement
from cloister_workers.keyagent.protocol import (
    encode,
    take,
    take_all_bytes,
    take_bytes,
    take_object,
    take_objects,
)

Table = Mapping[str, object]


def statement(body: Table, name: str) -> Statement:
    """A signed statement.  Raises RequestError, FormatError."""
    return Statement.from_bytes(take_bytes(body, name))


def statement_text(value: Statement) -> str:
    """Inverse of `statement`."""
    return encode(value.to_bytes())


def sealed(body: Table) -> SealedObject:
    """Manifest and trailer.  Raises RequestError, FormatError."""
    return SealedObject(take_bytes(body, "manifest"), statement(body, "trailer"))


def sealed_table(value: SealedObject) -> dict[str, object]:
    """Inverse of `sealed`."""
    return {"manifest": encode(value.manifest), "trailer": statement_text(value.trailer)}


def _evidence(body: Table) -> LogEvidence:
    return LogEvidence(
        entry=take_bytes(body, "entry"),
        index=take(body, "index", int),
        inclusion_proof=take_all_bytes(body, "inclusion_proof"),
        checkpoint=take_bytes(body, "checkpoint"),
        consistency_proof=take_all_bytes(body, "consistency_proof"),
    )


def _evidence_table(value: LogEvidence) -> dict[str, object]:
    return {
        "entry": encode(value.entry),
        "index": value.index,
        "inclusion_proof": [encode(item) for item in value.inclusion_proof],
        "checkpoint": encode(value.checkpoint),
        "consistency_proof": [encode(item) for item in value.consistency_proof],
    }


def job_opening(body: Table) -> JobOpening:
    """Raises RequestError, FormatError."""
    resume = None
    if body.get("resume") is not None:
        table = take_object(body, "resume")
        resume = Resume(sealed(table), statement(table, "result"))
    return JobOpening(
        authorisation=statement(body, "authorisation"),
        spec=take_bytes(body, "spec"),
        policy=statement(body, "policy"),
        attempt=take(body, "attempt", int),
        objects=tuple(sealed(item) for item in take_objects(body, "objects")),
        resume=resume,
        evidence=_evidence(take_object(body, "evidence")),
    )


def job_opening_table(value: JobOpening) -> dict[str, object]:
    """Inverse of `job_opening`."""
    resume: dict[str, object] | None = None
    if value.resume is not None:
        resume = {**sealed_table(value.resume.object), "result": statement_text(value.resume.result)}
    return {
        "authorisation": statement_text(value.authorisation),
        "spec": encode(value.spec),
        "policy": statement_text(value.policy),
        "attempt": value.attempt,
        "objects": [sealed_table(item) for item in value.objects],
        "resume": resume,
        "evidence": _evidence_table(value.evidence),
    }


def release_opening(body: Table) -> ReleaseOpening:
    """Raises RequestError, FormatError."""
    return ReleaseOpening(
        request=statement(body, "request"),
        approvals=tuple(Statement.from_bytes(item) for item in take_all_bytes(body, "approvals")),
        policy=statement(body, "policy"),
        result=statement(body, "result"),
        authorisation=statement(body, "authorisation"),
        object=sealed(take_object(body, "object")),
        attempt=take(body, "attempt", int),
        evidence=_evidence(take_object(body, "evidence")),
    )


def release_opening_table(value: ReleaseOpening) -> dict[str, object]:
    """Inverse of `release_opening`."""
    return {
        "request": statement_text(value.request),
        "approvals": [statement_text(item) for item in value.approvals],
        "policy": statement_text(value.policy),
        "result": statement_text(value.result),
        "authorisation": statement_text(value.authorisation),
        "object": sealed_table(value.object),
        "attempt": value.attempt,
        "evidence": _evidence_table(value.evidence),
    }
