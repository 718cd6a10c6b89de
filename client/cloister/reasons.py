# SPDX-License-Identifier: Apache-2.0
"""What each error reason of the contract becomes on the client: one table (protos/cloister/api/v1/errors.proto)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cloister.errors import (
    CloisterError,
    ConflictError,
    ConnectError,
    NotFoundError,
    PermissionDeniedError,
    RefusedError,
    ServerError,
    SiteRejectedError,
    StorageError,
    UploadError,
    UsageError,
)

DOMAIN = "cloister"
PREFIX = "ERROR_REASON_"
LOG_BEHIND_CALLER = "LOG_BEHIND_CALLER"
OFFSET_MISMATCH = "OFFSET_MISMATCH"


@dataclass(frozen=True)
class Answer:
    """An exception class and what the user can do."""

    error: type[CloisterError]
    remedy: str


REASONS: Mapping[str, Answer] = {
    "UNSPECIFIED": Answer(ServerError, "the control plane gave no reason; tell its administrator"),
    "INTERNAL": Answer(ServerError, "try once more, then give the correlation id to the administrator"),
    "AUDIT_UNAVAILABLE": Answer(ConnectError, "the audit log cannot be written; try again later"),
    "DATABASE_UNAVAILABLE": Answer(ConnectError, "the control plane's database does not answer; try again later"),
    "SERVER_STOPPING": Answer(ConnectError, "the control plane is being restarted; try again in a moment"),
    "UNKNOWN_IDENTITY": Answer(
        PermissionDeniedError, "this certificate is not on the site's roster; ask the root custodian to publish it"
    ),
    "ROLE_REQUIRED": Answer(PermissionDeniedError, "your roles do not allow this; see: cloister whoami"),
    "NOT_FOUND": Answer(NotFoundError, "check the id or name; other teams' objects are not visible"),
    "INVALID_FIELD": Answer(UsageError, "correct the named field"),
    "DEADLINE_REQUIRED": Answer(ServerError, "this client is too old for the site; update it"),
    "ID_CONFLICT": Answer(ConflictError, "the id is in use for something else; run the command again"),
    "EVIDENCE_REJECTED": Answer(SiteRejectedError, "a signed document was refused; check the clock, then your keys"),
    "OFFSET_MISMATCH": Answer(UploadError, "run the command again; it continues where the upload stands"),
    "DIGEST_MISMATCH": Answer(UploadError, "the bytes were damaged on the way; run the command again"),
    "BLOB_INCOMPLETE": Answer(RefusedError, "its upload is not finished; push it again to finish it"),
    "STORAGE_EXHAUSTED": Answer(StorageError, "the site's store is full; tell its administrator"),
    "LEASE_LOST": Answer(RefusedError, "another worker holds this work; write nothing more"),
    "WRONG_STATE": Answer(RefusedError, "its state does not allow this"),
    "NO_CAPABLE_WORKER": Answer(RefusedError, "no certified host could run this; choose another pool"),
    "ROSTER_ROLLBACK": Answer(RefusedError, "a newer roster is in force; sign one with a higher version"),
    "POLICY_NOT_MET": Answer(RefusedError, "the release policy does not hold"),
    "SELF_APPROVAL": Answer(PermissionDeniedError, "somebody other than the requester must approve"),
    "LOG_BEHIND_CALLER": Answer(
        ServerError, "the log is shorter than what was seen before: it was rolled back or forked; tell an auditor"
    ),
}
"""Name in ErrorReason without its prefix -> what is raised."""

_METADATA = ("field", "check", "state", "pool", "rule")
_DEFECTS = ("INTERNAL", "UNSPECIFIED", "AUDIT_UNAVAILABLE", "DATABASE_UNAVAILABLE")
"""For these the administrator's log has more, under the correlation id."""


def error_for(reason: str, metadata: Mapping[str, str], text: str) -> CloisterError:
    """The exception for a reason; `text` is the status message, `metadata` that of ErrorInfo."""
    name = reason.removeprefix(PREFIX)
    answer = REASONS.get(name, Answer(ServerError, "this client does not know the reason; update it"))
    keys = (*_METADATA, "correlation_id") if name in _DEFECTS or name not in REASONS else _METADATA
    named = [f"{key} {metadata[key]}" for key in keys if metadata.get(key)]
    what = one_line(text) or name.lower().replace("_", " ")
    where = f" ({', '.join(one_line(n) for n in named)})" if named else ""
    return answer.error(f"{what}{where}; {answer.remedy}", reason=name)


def one_line(text: str) -> str:
    """Text of the other side for a terminal: one printable line of at most 300 characters."""
    return "".join(c if c.isprintable() else " " for c in text).strip().rstrip(".")[:300]
