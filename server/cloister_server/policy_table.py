# SPDX-License-Identifier: Apache-2.0
"""Which roles may call which method.  What is not listed is denied; a test holds the table against the descriptors.

The table says who may knock.  Which team's objects a caller sees is the services' business.
"""

from __future__ import annotations

from types import MappingProxyType

MEMBER = "member"
APPROVER = "approver"
AUDITOR = "auditor"
ADMIN = "admin"
WORKER = "worker"
ENROLMENT = "enrolment"
"""Of a caller who presents the key of an enrolment token, and of nobody on the roster."""

_EVERYBODY = frozenset({MEMBER, APPROVER, AUDITOR, ADMIN, WORKER})
_MEMBERS = frozenset({MEMBER})
_READERS = frozenset({MEMBER, AUDITOR})
_RELEASE_READERS = frozenset({MEMBER, APPROVER, AUDITOR})
_TRANSFER = frozenset({MEMBER, WORKER})
_WORKERS = frozenset({WORKER})
_AUDITORS = frozenset({AUDITOR})
_ADMINS = frozenset({ADMIN})

_BY_SERVICE: dict[str, dict[str, frozenset[str]]] = {
    "cloister.api.v1.IdentityService": {
        "GetSite": _EVERYBODY,
        "WhoAmI": _EVERYBODY,
        "RenewCertificate": _EVERYBODY,
        "PublishRoster": _ADMINS,
    },
    "cloister.api.v1.EnrolmentService": {
        "CreateToken": _ADMINS,
        "ListTokens": _ADMINS,
        "WithdrawToken": _ADMINS,
        "AdmitClaim": _ADMINS,
        "ClaimToken": frozenset({ENROLMENT}),
    },
    "cloister.api.v1.BlobService": {
        "GetUpload": _TRANSFER,
        "WriteBlob": _TRANSFER,
        "ReadBlob": _TRANSFER,
    },
    "cloister.api.v1.DatasetService": {
        "CreateDataset": _MEMBERS,
        "GetDataset": _READERS,
        "ListDatasets": _READERS,
        "DeleteDataset": _MEMBERS,
    },
    "cloister.api.v1.GrantService": {
        "GetWrap": _MEMBERS,
        "AddWraps": _MEMBERS,
    },
    "cloister.api.v1.JobService": {
        "CreateJob": _MEMBERS,
        "GetJob": _READERS,
        "ListJobs": _READERS,
        "CancelJob": _MEMBERS,
        "PauseJob": _MEMBERS,
        "ResumeJob": _MEMBERS,
        "WatchJob": _READERS,
        "GetJobReport": _READERS,
    },
    "cloister.api.v1.ModelService": {
        "CreateModelVersion": _MEMBERS,
        "GetModelVersion": _READERS,
        "ListModelVersions": _READERS,
        "PublishPolicy": frozenset({ADMIN, AUDITOR}),
        "GetPolicy": _EVERYBODY,
        "CreateRelease": _MEMBERS,
        "ApproveRelease": frozenset({APPROVER}),
        "GetRelease": _RELEASE_READERS,
        "ListReleases": _RELEASE_READERS,
    },
    "cloister.api.v1.WorkerService": {
        "LeaseWork": _WORKERS,
        "Heartbeat": _WORKERS,
        "RequestOpening": _WORKERS,
        "ReportEvents": _WORKERS,
        "CreateArtifact": _WORKERS,
        "FinishJob": _WORKERS,
        "FinishRelease": _WORKERS,
    },
    "cloister.api.v1.OperationsService": {
        "GetMaintenance": _EVERYBODY,
        "BeginMaintenance": _ADMINS,
        "EndMaintenance": _ADMINS,
        "ListWorkers": _ADMINS,
        "SetWorkerMode": _ADMINS,
        "ListUsage": frozenset({ADMIN, MEMBER}),
        "SetQuota": _ADMINS,
    },
    "cloister.api.v1.AuditService": {
        "GetCheckpoint": _EVERYBODY,
        "GetEntry": _AUDITORS,
        "ListEntries": _AUDITORS,
        "ExportLog": _AUDITORS,
    },
    "grpc.health.v1.Health": {
        "Check": _EVERYBODY,
        "List": _EVERYBODY,
        "Watch": _EVERYBODY,
    },
}

ROLES = MappingProxyType(
    {f"/{service}/{method}": roles for service, methods in _BY_SERVICE.items() for method, roles in methods.items()}
)
"""Full method name to the roles that may call it."""

WITH_EXPIRED_ROSTER = frozenset(
    {
        "/cloister.api.v1.IdentityService/GetSite",
        "/cloister.api.v1.IdentityService/PublishRoster",
        "/grpc.health.v1.Health/Check",
    }
)
"""What still works once the roster has expired: finding that out, and publishing a newer one."""
