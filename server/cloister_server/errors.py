# SPDX-License-Identifier: Apache-2.0
"""Errors of the control plane, each with its reason of errors.proto and its gRPC status.

ServerError                     any refusal that a caller may see; never raised itself
├── AuditUnavailableError       the audit log cannot be written, so nothing may change
├── DatabaseUnavailableError    the database does not answer
├── StoppingError               this control plane is being stopped
├── UnknownIdentityError        no certificate that the roster pins
├── RoleRequiredError           the caller's roles do not allow the method
├── NotFoundError               no such object, or one of another team: the answers are identical
├── InvalidFieldError           a field of the request is wrong
├── DeadlineRequiredError       a unary call without a deadline
├── IdConflictError             the client-made id is in use for something else
├── EvidenceRejectedError       a signed document does not verify
├── OffsetMismatchError         an upload goes on at the wrong place
├── DigestMismatchError         the uploaded bytes are not the declared ones
├── BlobIncompleteError         the object's blob is not uploaded yet
├── StorageExhaustedError       the store is below its reserve
├── LeaseLostError              the worker no longer holds the lease
├── WrongStateError             the object's state does not allow it
├── NoCapableWorkerError        no certified host could ever run the job
├── RosterRollbackError         an older roster than the one in force
├── PolicyNotMetError           the release policy does not hold
├── SelfApprovalError           an approval by the requester
└── LogBehindCallerError        the caller's checkpoint is ahead of this log

ConfigError and StartError stop the process before it serves, BackupError a backup or a restore; they never cross
the wire.
"""

from __future__ import annotations

from typing import ClassVar

import grpc

from cloister.evidence.errors import EvidenceError, PolicyError, RollbackError

DOMAIN = "cloister"
INTERNAL_TEXT = "internal error; give the correlation id to the site's administrator"


class ConfigError(Exception):
    """The configuration file cannot be used."""


class StartError(Exception):
    """The site cannot be served: its files, database or roster do not fit together."""


class BackupError(Exception):
    """A backup cannot be made, or may not be restored."""


class ServerError(Exception):
    """A refusal that a caller may see."""

    reason: ClassVar[str] = "INTERNAL"
    code: ClassVar[grpc.StatusCode] = grpc.StatusCode.INTERNAL

    def __init__(self, message: str, **metadata: str) -> None:
        super().__init__(message)
        self.metadata = metadata


class AuditUnavailableError(ServerError):
    """The audit log cannot be written."""

    reason = "AUDIT_UNAVAILABLE"
    code = grpc.StatusCode.UNAVAILABLE


class DatabaseUnavailableError(ServerError):
    """The database does not answer."""

    reason = "DATABASE_UNAVAILABLE"
    code = grpc.StatusCode.UNAVAILABLE


class StoppingError(ServerError):
    """This control plane is being stopped."""

    reason = "SERVER_STOPPING"
    code = grpc.StatusCode.UNAVAILABLE

    def __init__(self) -> None:
        super().__init__("this control plane is being stopped; call again")


class UnknownIdentityError(ServerError):
    """The caller is nobody that the roster knows."""

    reason = "UNKNOWN_IDENTITY"
    code = grpc.StatusCode.UNAUTHENTICATED


class RoleRequiredError(ServerError):
    """The caller's roles do not allow the method."""

    reason = "ROLE_REQUIRED"
    code = grpc.StatusCode.PERMISSION_DENIED


class NotFoundError(ServerError):
    """Absent, or of another team."""

    reason = "NOT_FOUND"
    code = grpc.StatusCode.NOT_FOUND

    def __init__(self, kind: str) -> None:
        """`kind` is a fixed word: the text says nothing about what was asked for."""
        super().__init__(f"no such {kind}")


class InvalidFieldError(ServerError):
    """A field of the request is wrong."""

    reason = "INVALID_FIELD"
    code = grpc.StatusCode.INVALID_ARGUMENT

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}", field=field)


class DeadlineRequiredError(ServerError):
    """A unary call without a deadline."""

    reason = "DEADLINE_REQUIRED"
    code = grpc.StatusCode.INVALID_ARGUMENT


class IdConflictError(ServerError):
    """The client-made id is taken."""

    reason = "ID_CONFLICT"
    code = grpc.StatusCode.ALREADY_EXISTS


class EvidenceRejectedError(ServerError):
    """A signed document does not verify."""

    reason = "EVIDENCE_REJECTED"
    code = grpc.StatusCode.INVALID_ARGUMENT

    def __init__(self, check: str, message: str) -> None:
        super().__init__(message, check=check)


class OffsetMismatchError(ServerError):
    """An upload goes on at the wrong place."""

    reason = "OFFSET_MISMATCH"
    code = grpc.StatusCode.FAILED_PRECONDITION


class DigestMismatchError(ServerError):
    """The uploaded bytes are not the declared ones."""

    reason = "DIGEST_MISMATCH"
    code = grpc.StatusCode.DATA_LOSS


class BlobIncompleteError(ServerError):
    """The object's blob is not uploaded yet."""

    reason = "BLOB_INCOMPLETE"
    code = grpc.StatusCode.FAILED_PRECONDITION


class StorageExhaustedError(ServerError):
    """The store is below its reserve."""

    reason = "STORAGE_EXHAUSTED"
    code = grpc.StatusCode.RESOURCE_EXHAUSTED


class LeaseLostError(ServerError):
    """The worker no longer holds the lease."""

    reason = "LEASE_LOST"
    code = grpc.StatusCode.FAILED_PRECONDITION


class WrongStateError(ServerError):
    """The object's state does not allow it."""

    reason = "WRONG_STATE"
    code = grpc.StatusCode.FAILED_PRECONDITION


class NoCapableWorkerError(ServerError):
    """No certified host could ever run the job."""

    reason = "NO_CAPABLE_WORKER"
    code = grpc.StatusCode.FAILED_PRECONDITION


class RosterRollbackError(ServerError):
    """An older roster than the one in force."""

    reason = "ROSTER_ROLLBACK"
    code = grpc.StatusCode.FAILED_PRECONDITION


class PolicyNotMetError(ServerError):
    """The release policy does not hold."""

    reason = "POLICY_NOT_MET"
    code = grpc.StatusCode.FAILED_PRECONDITION


class SelfApprovalError(ServerError):
    """An approval by the requester of the same release."""

    reason = "SELF_APPROVAL"
    code = grpc.StatusCode.PERMISSION_DENIED


class LogBehindCallerError(ServerError):
    """The caller's checkpoint is ahead of this log."""

    reason = "LOG_BEHIND_CALLER"
    code = grpc.StatusCode.FAILED_PRECONDITION


def of_evidence(error: EvidenceError) -> ServerError:
    """What a caller sees of a refused document."""
    return EvidenceRejectedError(error.reason, str(error))


def of_roster(error: EvidenceError) -> ServerError:
    """The same for a roster, whose age has a reason of its own."""
    if isinstance(error, RollbackError):
        return RosterRollbackError(str(error))
    return of_evidence(error)


def of_policy(error: PolicyError, rule: str) -> ServerError:
    """The same for a release policy that does not hold."""
    return PolicyNotMetError(str(error), rule=rule)
