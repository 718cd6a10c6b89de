# SPDX-License-Identifier: Apache-2.0
"""From a lease and the log's evidence to what the key agent checks; bytes pass through unchanged."""

from __future__ import annotations

from typing import Literal

from cloister.api.v1 import workers_pb2
from cloister.evidence.errors import BindingError, FormatError
from cloister.evidence.manifest import Manifest
from cloister.evidence.opening import JobOpening, ReleaseOpening, Resume
from cloister.evidence.signatures import Statement
from cloister.wire import evidence_from_proto, sealed_from_proto, statement_from_proto
from cloister_workers.agent.errors import AttemptError, HostFault, JobFault
from cloister_workers.keyagent.errors import Refused

_OF_THE_HOST = frozenset(
    {"BAD_REQUEST", "UNKNOWN_SESSION", "TRANSFER_FAILED", "READER_GONE", "STATE_NOT_WRITTEN", "INTERNAL", "KEY_AGENT"}
)
DATA_ROLES: tuple[Literal["training", "validation", "evaluation", "replay"], ...] = (
    "training",
    "validation",
    "evaluation",
    "replay",
)
_OF_THE_RESULT = frozenset({"BAD_BUNDLE", "UNSAFE_NAME", "FILE_NOT_ALLOWED", "BUNDLE_LIMIT", "BAD_RESULT"})


def inputs(lease: workers_pb2.JobLease) -> tuple[workers_pb2.GrantedObject, ...]:
    """Every input in the order of `Authorisation.inputs`."""
    data = [getattr(lease, name) for name in DATA_ROLES if lease.HasField(name)]
    return (lease.model, *lease.model_layers, *second_model(lease), *data)


def second_model(lease: workers_pb2.JobLease) -> tuple[workers_pb2.GrantedObject, ...]:
    """Base and layer of the second model, if there is one."""
    return (*((lease.auxiliary,) if lease.HasField("auxiliary") else ()), *lease.auxiliary_layers)


def check_names(lease: workers_pb2.JobLease) -> None:
    """Hold the lease's own names of objects against the manifests that the key agent will judge by position.

    The lease is not signed.  A control plane that named one dataset as two inputs would otherwise have the trainer
    learn from the rows that it is measured on; and a name becomes a file's name here.  The second model alone may be
    what the first one is: a version learns from another one of its own base.  Raises JobFault.
    """
    granted = [*inputs(lease), *([lease.resume.object] if lease.HasField("resume") else [])]
    try:
        named = [Manifest.parse(item.sealed.manifest).id for item in granted]
    except FormatError as error:
        raise evidence_refused(error.reason) from None
    second = [item.object_id for item in second_model(lease)]
    first = [lease.model.object_id, *(layer.object_id for layer in lease.model_layers)]
    rest = [name for name in named if name not in first and name not in second]
    distinct = len(set(first)) + len(set(second)) + len(set(rest)) == len(named)
    if named != [item.object_id for item in granted] or not distinct:
        raise evidence_refused(BindingError.reason)


def job_opening(lease: workers_pb2.JobLease, logged: workers_pb2.RequestOpeningResponse) -> JobOpening:
    """Raises JobFault where a document is malformed."""
    try:
        resume = None
        if lease.HasField("resume"):
            point = lease.resume
            resume = Resume(sealed_from_proto(point.object.sealed), statement_from_proto(point.result))
        return JobOpening(
            authorisation=statement_from_proto(lease.authorisation),
            spec=lease.spec,
            policy=statement_from_proto(lease.policy),
            attempt=lease.attempt,
            objects=tuple(sealed_from_proto(item.sealed) for item in inputs(lease)),
            resume=resume,
            evidence=evidence_from_proto(logged),
        )
    except FormatError as error:
        raise evidence_refused(error.reason) from None


def release_opening(lease: workers_pb2.ReleaseLease, logged: workers_pb2.RequestOpeningResponse) -> ReleaseOpening:
    """Raises JobFault where a document is malformed."""
    try:
        return ReleaseOpening(
            request=statement_from_proto(lease.request),
            approvals=tuple(statement_from_proto(item) for item in lease.approvals),
            policy=statement_from_proto(lease.policy),
            result=statement_from_proto(lease.result),
            authorisation=statement_from_proto(lease.authorisation),
            object=sealed_from_proto(lease.object.sealed),
            attempt=lease.attempt,
            evidence=evidence_from_proto(logged),
        )
    except FormatError as error:
        raise evidence_refused(error.reason) from None


def roster(logged: workers_pb2.RequestOpeningResponse) -> Statement:
    """The roster that came with the evidence."""
    return statement_from_proto(logged.roster)


def evidence_refused(reason: str) -> JobFault:
    """What a refusal of the key agent is for a job."""
    return JobFault("EVIDENCE_REFUSED", f"the host's key agent refused to open this ({reason}); nothing was opened")


def refusal(refused: Refused) -> AttemptError:
    """What an answer of the key agent means for the attempt.  The key agent's own words stay on this host."""
    if refused.code == "DISK_FULL":
        return HostFault("DISK_FULL", "the worker host's disk is full; its administrator must free space")
    if refused.code in _OF_THE_HOST:
        return HostFault("KEY_AGENT_FAILED", f"the host's key agent could not do its work ({refused.code})")
    if refused.code in _OF_THE_RESULT:
        return JobFault("RESULT_REFUSED", f"the trainer made something that may not be sealed ({refused.code})")
    return evidence_refused(refused.code)
