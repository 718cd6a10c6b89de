# SPDX-License-Identifier: Apache-2.0
"""A good request for every method of the contract, on a served site that has one object of every kind.

A method that has no maker here gets a request with the ids of these objects wherever a field asks for one.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

from google.protobuf.message import Message
from sqlalchemy import delete, select, update

from cloister.api.v1 import (
    blobs_pb2,
    common_pb2,
    datasets_pb2,
    identity_pb2,
    jobs_pb2,
    models_pb2,
    operations_pb2,
    workers_pb2,
)
from cloister.wire import sealed_to_proto, statement_from_proto, statement_to_proto
from cloister_server.database.tables import job_attempt, maintenance, team_quota, worker_host
from cloister_server.policy_table import ROLES
from contract_methods import empty_request
from debias_job import METHOD
from debias_site import found
from good_tokens import GoodTokens
from json_strategies import Edit, edited
from served_site import MEMBERS, Caller, Refused, ServedSite, refusal, sha256
from site_objects import (
    Made,
    Signed,
    approval,
    artifact,
    artifact_request,
    create_dataset,
    grant,
    owned,
    policy,
    publish_policy,
    push_dataset,
    push_model,
    release_request,
    sign_job,
    success,
    upload,
)

MEMBER, HOST = "alice", "host-1"
_API = "/cloister.api.v1."


SIGNED = tuple(
    f"{_API}{name}"
    for name in (
        "DatasetService/CreateDataset",
        "JobService/CreateJob",
        "ModelService/CreateModelVersion",
        "ModelService/PublishPolicy",
        "ModelService/CreateRelease",
        "ModelService/ApproveRelease",
        "WorkerService/CreateArtifact",
        "WorkerService/FinishRelease",
    )
)
"""Methods whose requests carry documents that the caller signs."""


class GoodRequests:
    """Team blue's objects, and what its people and a host would ask for next."""

    def __init__(self, live: ServedSite) -> None:
        self.live = live
        self.founded = live.founded
        publish_policy(live, policy(live.founded, approvals=1))
        self.training, self.model = push_dataset(live, MEMBER), push_model(live, MEMBER)
        self.finished, self.export, self.result = self._finish_a_job()
        self.release = self._ask_for_release()
        self._held = self.finished
        self.tokens = GoodTokens(live, self.training)
        self._makers: dict[str, Callable[[], Message]] = {
            f"{_API}IdentityService/PublishRoster": self._roster,
            f"{_API}BlobService/WriteBlob": self._piece,
            f"{_API}DatasetService/CreateDataset": self._dataset,
            f"{_API}DatasetService/DeleteDataset": self._unused_dataset,
            f"{_API}JobService/CreateJob": lambda: self.sign().request(),
            f"{_API}JobService/CancelJob": lambda: jobs_pb2.CancelJobRequest(id=self._waiting()),
            f"{_API}JobService/PauseJob": lambda: jobs_pb2.PauseJobRequest(id=self._waiting()),
            f"{_API}JobService/ResumeJob": lambda: jobs_pb2.ResumeJobRequest(id=self._waiting()),
            f"{_API}ModelService/CreateModelVersion": self._base_model,
            f"{_API}ModelService/PublishPolicy": self._policy,
            f"{_API}ModelService/CreateRelease": self._release,
            f"{_API}ModelService/ApproveRelease": self._approval,
            f"{_API}OperationsService/BeginMaintenance": lambda: operations_pb2.BeginMaintenanceRequest(reason="disks"),
            f"{_API}OperationsService/SetWorkerMode": lambda: operations_pb2.SetWorkerModeRequest(
                host=HOST, mode=operations_pb2.WORKER_MODE_CORDONED
            ),
            f"{_API}OperationsService/SetQuota": lambda: operations_pb2.SetQuotaRequest(team="blue"),
            f"{_API}WorkerService/Heartbeat": lambda: self.held_ids("Heartbeat"),
            f"{_API}WorkerService/RequestOpening": lambda: self.held_ids("RequestOpening"),
            f"{_API}WorkerService/ReportEvents": self._events,
            f"{_API}WorkerService/CreateArtifact": self._artifact,
            f"{_API}WorkerService/FinishJob": self._finish,
            f"{_API}WorkerService/FinishRelease": self._grant,
            **self.tokens.makers(),
        }

    def callers(self, method: str) -> list[Caller]:
        """One caller for each role that may call a method."""
        if "enrolment" in ROLES[method]:
            return [self.tokens.holder]
        people = ("alice", "bob", "carol", "dana")
        allowed = [name for name in people if ROLES[method] & set(MEMBERS[name][1])]
        return [self.live.caller(name) for name in (*allowed, *([HOST] if "worker" in ROLES[method] else []))]

    def request(self, method: str) -> Message:
        """A request that would be answered."""
        self._open()
        return self._makers.get(method, lambda: self._with_ids(method))()

    def _open(self) -> None:
        """Whatever was asked before, the site takes new work and every host may have it."""
        with self.live.database.writer.begin() as connection:
            connection.execute(delete(maintenance))
            connection.execute(delete(team_quota))
            connection.execute(update(worker_host).values(mode="ACTIVE"))

    def signed(self, method: str, first: list[Edit], second: list[Edit]) -> Message:
        """A good request whose documents were changed before they were signed by whoever has the right to."""
        request = self.request(method)
        if isinstance(request, jobs_pb2.CreateJobRequest):
            request.spec = _changed(request.spec, first)
            bound: list[Edit] = [Edit((_place(request.authorisation, "spec_sha256"),), "set", "", sha256(request.spec))]
            self._sign_again(request.authorisation, bound + second[: len(request.spec) % 2], MEMBER)
        elif isinstance(request, datasets_pb2.CreateDatasetRequest | models_pb2.CreateModelVersionRequest):
            self._seal_again(request.sealed, first, second[:1], MEMBER)
        elif isinstance(request, workers_pb2.CreateArtifactRequest):
            self._seal_again(request.sealed, [], first[:1], HOST)
            digest = sha256(request.sealed.trailer.payload)
            bound = [Edit((_place(request.result, "trailer_sha256"),), "set", "", digest)]
            self._sign_again(request.result, [*bound, *second], HOST)
        elif isinstance(request, models_pb2.PublishPolicyRequest):
            self._sign_again(request.policy, first, "policy")
        elif isinstance(request, models_pb2.CreateReleaseRequest):
            self._sign_again(request.request, first, MEMBER)
        elif isinstance(request, models_pb2.ApproveReleaseRequest):
            self._sign_again(request.approval, first, "bob")
        elif isinstance(request, workers_pb2.FinishReleaseRequest):
            self._sign_again(request.statement, first, HOST)
        return request

    def _seal_again(self, sealed: common_pb2.SealedObject, first: list[Edit], second: list[Edit], owner: str) -> None:
        sealed.manifest = _changed(sealed.manifest, first)
        bound = Edit((_place(sealed.trailer, "manifest_sha256"),), "set", "", sha256(sealed.manifest))
        self._sign_again(sealed.trailer, [*second, bound], owner)

    def _sign_again(self, statement: common_pb2.Statement, several: list[Edit], who: str) -> None:
        keys = {**self.founded.people, **self.founded.hosts}
        key = self.founded.policy_key if who == "policy" else keys[who].signing
        statement.CopyFrom(statement_to_proto(key.sign(statement.payload_type, _changed(statement.payload, several))))

    def sign(self, **changes: object) -> Signed:
        """A job of the member under the policy in force."""
        asked = self.live.caller(MEMBER).models.GetPolicy(models_pb2.GetPolicyRequest(), timeout=30)
        digest = statement_from_proto(asked.policy).digest
        return sign_job(self.founded, MEMBER, self.training, self.model, digest, **changes)

    def sign_bytes(self, spec: bytes) -> jobs_pb2.CreateJobRequest:
        """A job of the member with any bytes as its specification."""
        signed = replace(self.sign().authorisation, spec_sha256=sha256(spec))
        statement = signed.sign(self.founded.people[MEMBER].signing)
        return jobs_pb2.CreateJobRequest(authorisation=statement_to_proto(statement), spec=spec)

    def empty(self, name: str) -> Message:
        """A request with nothing in it, by service and method."""
        return empty_request(f"{_API}{name}")

    def held(self) -> Signed:
        """A job that the host holds a lease of, in its first attempt."""
        host, job = self.live.caller(HOST), self._held
        beat = workers_pb2.HeartbeatRequest(work_id=job.id, attempt=1)
        if job is not self.finished and not _refused(lambda: host.workers.Heartbeat(beat, timeout=30)):
            return job
        self._held = self.sign(priority=100, method=METHOD)
        self.live.caller(MEMBER).jobs.CreateJob(self._held.request(), timeout=30)
        while self._lease().job.job_id != self._held.id:
            pass  # a release that waited goes first, and is lost by asking again
        return self._held

    def held_ids(self, method: str) -> Message:
        message = empty_request(f"{_API}WorkerService/{method}")
        job = self.held()
        for name in ("work_id", "job_id"):
            if name in message.DESCRIPTOR.fields_by_name:
                setattr(message, name, job.id)
        message.attempt = 1  # type: ignore[attr-defined]  # every such request has the fencing token
        return message

    def _lease(self) -> workers_pb2.LeaseWorkResponse:
        return self.live.caller(HOST).workers.LeaseWork(workers_pb2.LeaseWorkRequest(), timeout=30)

    def _with_ids(self, method: str) -> Message:
        message = empty_request(method)
        service = method.split("/")[1]
        ids = {"Dataset": self.training.id, "Blob": self.training.id, "Release": self.release}
        wanted = next((value for name, value in ids.items() if name in method), self.finished.id)
        for field in message.DESCRIPTOR.fields:
            if field.name in ("id", "object_id") and field.type == field.TYPE_STRING:
                setattr(message, field.name, self.training.id if "Blob" in service else wanted)
        return message

    def _finish_a_job(self) -> tuple[Signed, Made, object]:
        job, host = self.sign(method=METHOD), self.live.caller(HOST)
        self.live.caller(MEMBER).jobs.CreateJob(job.request(), timeout=30)
        self._lease()
        made = found(self.founded, HOST, job, verdict="PASS")
        for registered, sealed in ((made.report_request, made.report), (made.export_request, made.export)):
            host.workers.CreateArtifact(registered, timeout=30)
            upload(host, sealed, attempt=1)
        host.workers.FinishJob(success(job, 1, made.export), timeout=30)
        return job, made.export, made.result

    def _release(self) -> models_pb2.CreateReleaseRequest:
        asked = release_request(self.founded, MEMBER, self.finished, self.export, self.result, MEMBER)  # type: ignore[arg-type]  # a statement
        return models_pb2.CreateReleaseRequest(request=statement_to_proto(asked))

    def _ask_for_release(self) -> str:
        return str(self.live.caller(MEMBER).models.CreateRelease(self._release(), timeout=30).release.id)

    def _approval(self) -> models_pb2.ApproveReleaseRequest:
        request = self._release().request
        asked = models_pb2.CreateReleaseRequest(request=request)
        release = self.live.caller(MEMBER).models.CreateRelease(asked, timeout=30).release
        given = approval(self.founded, "bob", statement_from_proto(request))
        return models_pb2.ApproveReleaseRequest(id=release.id, approval=statement_to_proto(given))

    def _grant(self) -> workers_pb2.FinishReleaseRequest:
        self.live.caller("bob").models.ApproveRelease(self._approval(), timeout=30)
        return grant(self.founded, HOST, self._lease().release)

    def _roster(self) -> identity_pb2.PublishRosterRequest:
        return identity_pb2.PublishRosterRequest(roster=statement_to_proto(self.founded.custody.roster()))

    def _dataset(self) -> datasets_pb2.CreateDatasetRequest:
        made = owned(self.founded, MEMBER)
        return datasets_pb2.CreateDatasetRequest(sealed=sealed_to_proto(made.sealed), wraps=made.wrap_messages())

    def _unused_dataset(self) -> datasets_pb2.DeleteDatasetRequest:
        made = owned(self.founded, MEMBER)
        create_dataset(self.live.caller(MEMBER), made)
        return datasets_pb2.DeleteDatasetRequest(id=made.id)

    def _piece(self) -> blobs_pb2.WriteBlobRequest:
        made = owned(self.founded, MEMBER)
        create_dataset(self.live.caller(MEMBER), made)
        return blobs_pb2.WriteBlobRequest(object_id=made.id, data=made.ciphertext)

    def _waiting(self) -> str:
        job = self.sign()
        self.live.caller(MEMBER).jobs.CreateJob(job.request(), timeout=30)
        return job.id

    def _base_model(self) -> models_pb2.CreateModelVersionRequest:
        made = owned(self.founded, MEMBER, "model")
        return models_pb2.CreateModelVersionRequest(sealed=sealed_to_proto(made.sealed), wraps=made.wrap_messages())

    def _policy(self) -> models_pb2.PublishPolicyRequest:
        return models_pb2.PublishPolicyRequest(policy=statement_to_proto(policy(self.founded, approvals=1)))

    def _events(self) -> workers_pb2.ReportEventsRequest:
        message = self.held_ids("ReportEvents")
        assert isinstance(message, workers_pb2.ReportEventsRequest)
        progress = jobs_pb2.Progress(label="train", current=1, total=2, eta_seconds=3)
        for number, kind in enumerate(("step", "progress", "evaluation", "checkpoint"), self._next_event()):
            event = message.events.add(stream_seq=number, type=kind, level="info", data={"train_loss": 1.0})
            event.progress.CopyFrom(progress)
            event.step.CopyFrom(jobs_pb2.JobStep(name="validate", status="finished"))
        return message

    def _next_event(self) -> int:
        query = select(job_attempt.c.last_stream_seq).where(job_attempt.c.job_id == self._held.id)
        with self.live.database.reader.connect() as connection:
            return int(connection.execute(query).scalar_one()) + 1

    def _artifact(self) -> workers_pb2.CreateArtifactRequest:
        job = self.held()
        made, result = artifact(self.founded, HOST, job, 1, "state")
        return artifact_request(job, 1, made, result)

    def _finish(self) -> workers_pb2.FinishJobRequest:
        job, host = self.held(), self.live.caller(HOST)
        made = found(self.founded, HOST, job, verdict="PASS")
        for registered, sealed in ((made.report_request, made.report), (made.export_request, made.export)):
            host.workers.CreateArtifact(registered, timeout=30)
            upload(host, sealed, attempt=1)
        return success(job, 1, made.export)


def _changed(document: bytes, several: list[Edit]) -> bytes:
    """The document after the changes, in the canonical form where it has one."""
    changed = edited(json.loads(document), several)
    return json.dumps(changed, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode(
        "utf-8", "surrogatepass"
    )


def _place(statement: common_pb2.Statement, name: str) -> int:
    return sorted(json.loads(statement.payload)).index(name)


def _refused(call: Callable[[], object]) -> Refused | None:
    try:
        return refusal(call)
    except AssertionError:
        return None
