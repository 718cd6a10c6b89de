# SPDX-License-Identifier: Apache-2.0
"""Frozen rows: what a query returns, with types.  Fields are the columns of `tables.py`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import Connection, Select

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class ObjectRow:
    """A sealed object."""

    id: str
    kind: str
    team: str
    owner: str
    pool: str
    state: str
    manifest: bytes
    trailer: bytes
    trailer_sha256: str
    ciphertext_sha256: str
    size: int
    created_at: int
    expires_at_s: int


@dataclass(frozen=True, kw_only=True)
class JobRow:
    """A job."""

    id: str
    team: str
    owner: str
    pool: str
    purpose: str
    state: str
    state_reason: str
    priority: int
    attempt: int
    max_attempts: int
    worker: str
    lease_until: int
    cancel_requested: bool
    resume_object_id: str
    model_version: str
    spec: bytes
    spec_sha256: str
    authorisation: bytes
    authorisation_sha256: str
    policy_sha256: str
    created_at: int
    started_at: int
    finished_at: int
    expires_at_s: int
    event_seq: int
    trained_tokens: int
    progress: str
    metrics: str
    error_code: str
    error_message: str
    error_param: str


@dataclass(frozen=True, kw_only=True)
class ArtifactRow:
    """A checkpoint, result or report."""

    object_id: str
    job_id: str
    attempt: int
    step: int
    kind: str
    result: bytes
    """Empty for a report, which the result of the export binds."""
    result_sha256: str


@dataclass(frozen=True, kw_only=True)
class VersionRow:
    """A model version."""

    id: str
    name: str
    team: str
    state: str
    object_id: str
    base: str
    base_digest: str
    layers: str
    job_id: str
    spec_digest: str
    dataset_digests: str
    seed: str
    metrics_before: str
    metrics_after: str
    epsilon: float | None
    result: bytes
    licence: str
    source: str
    created_at: int


@dataclass(frozen=True, kw_only=True)
class ReleaseRow:
    """A release."""

    id: str
    model_version: str
    team: str
    pool: str
    requester: str
    recipient: str
    state: str
    request: bytes
    request_sha256: str
    policy_sha256: str
    approvals_required: int
    attempt: int
    worker: str
    lease_until: int
    wrap_key_id: str
    wrap: bytes
    statement: bytes
    refusal: str
    created_at: int


@dataclass(frozen=True, kw_only=True)
class TokenRow:
    """An enrolment token, without its secret."""

    id: str
    state: str
    person: str
    tls_sha256: str
    certificate_pem: str
    statement: bytes
    claim: bytes
    welcome: bytes
    created_at: int
    expires_at_s: int


# The driver's rows carry no types: here, and nowhere else, columns become fields.
def one(connection: Connection, query: Select[Any], make: Callable[..., T]) -> T | None:
    """The only row, or None."""
    found = connection.execute(query).mappings().one_or_none()
    return None if found is None else make(**found)


def several(connection: Connection, query: Select[Any], make: Callable[..., T]) -> list[T]:
    """Every row."""
    return [make(**row) for row in connection.execute(query).mappings()]


def to_text(value: object) -> str:
    """JSON for a column; figures may be infinite or not a number, which Python writes and reads back."""
    return json.dumps(value, separators=(",", ":"), sort_keys=True)


def figures(text: str) -> Mapping[str, float]:
    """Figures out of a column."""
    return {str(name): float(value) for name, value in json.loads(text or "{}").items()}
