# SPDX-License-Identifier: Apache-2.0
"""Test doubles around a real agent: a control plane in memory, a scripted trainer, a key agent in a thread."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2  # type: ignore[import-untyped]  # ships no types
from grpc_status import rpc_status  # type: ignore[import-untyped]  # ships no types

from builders import Job, Sealed, Site
from cloister.api.v1 import blobs_pb2, common_pb2, workers_pb2
from cloister.evidence.opening import LogEvidence, ReleaseOpening
from cloister.evidence.signatures import Statement
from cloister.sd_notify import ServiceManager
from cloister.wire import sealed_to_proto, statement_to_proto
from cloister_workers.agent.control import ControlPlane, Stubs
from cloister_workers.agent.host import Host
from cloister_workers.agent.modelcache import ModelCache
from cloister_workers.agent.spool import Spool
from cloister_workers.agent.training import Place
from cloister_workers.config import HostPaths
from cloister_workers.keyagent.memory import Memory
from cloister_workers.keyagent.server import Access, KeyAgent, listen, serve
from cloister_workers.keyagent.vault import load_vault
from cloister_workers.sandbox.spec import SandboxSpec
from fake_trainer import FakeProcess, Script
from keyagent_process import write_directory

LEASE_SECONDS = 60


class CallError(grpc.RpcError, grpc.Call):
    """A failed call with a reason of errors.proto."""

    def __init__(self, code: grpc.StatusCode, reason: str = "") -> None:
        super().__init__(reason)
        self._code = code
        status = status_pb2.Status(code=code_pb2.Code.Value(code.name), message="told by the test")
        if reason:
            detail = any_pb2.Any()
            detail.Pack(error_details_pb2.ErrorInfo(reason=reason, domain="cloister"))
            status.details.append(detail)
        self._status = rpc_status.to_status(status)

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return "told by the test"

    def trailing_metadata(self) -> tuple[tuple[str, str | bytes], ...]:  # type: ignore[override]  # plain pairs do
        return tuple(self._status.trailing_metadata)

    def initial_metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        return ()

    def is_active(self) -> bool:
        return False

    def time_remaining(self) -> float:
        return 0.0

    def cancel(self) -> bool:
        return False

    def add_callback(self, callback: Callable[[], None]) -> bool:
        return False


def unavailable() -> CallError:
    """No answer."""
    return CallError(grpc.StatusCode.UNAVAILABLE)


def lease_lost() -> CallError:
    """Another worker holds the work."""
    return CallError(grpc.StatusCode.FAILED_PRECONDITION, "ERROR_REASON_LEASE_LOST")


@dataclass
class FakeControlPlane:
    """Stands for both stubs; `fail` holds, by method, what the next calls raise."""

    site: Site
    blobs: dict[str, bytes] = field(default_factory=dict)
    fail: dict[str, list[Exception]] = field(default_factory=dict)
    directive: workers_pb2.Directive.ValueType = workers_pb2.DIRECTIVE_CONTINUE
    job: Job | None = None
    resume: Sealed | None = None
    release: ReleaseOpening | None = None
    tamper: Callable[[workers_pb2.RequestOpeningResponse], None] = lambda _: None
    on_event: Callable[[workers_pb2.WorkerEvent], None] = lambda _: None
    events: list[workers_pb2.WorkerEvent] = field(default_factory=list)
    artifacts: list[workers_pb2.CreateArtifactRequest] = field(default_factory=list)
    uploads: dict[str, bytearray] = field(default_factory=dict)
    finished: list[workers_pb2.FinishJobRequest] = field(default_factory=list)
    released: list[workers_pb2.FinishReleaseRequest] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    work: queue.SimpleQueue[workers_pb2.LeaseWorkResponse] = field(default_factory=queue.SimpleQueue)

    def control(self) -> ControlPlane:
        """As the agent uses it, without waiting between tries."""
        return ControlPlane(lambda: Stubs(self, self), lambda _: None)  # type: ignore[arg-type]  # stands for both stubs

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if self.fail.get(name):
            raise self.fail[name].pop(0)

    def names(self) -> list[str]:
        return [event.message for event in self.events]

    # ------------------------------------------------------------ WorkerService
    @property
    def LeaseWork(self) -> FakeLeaseWork:
        return FakeLeaseWork(self)

    def Heartbeat(self, request: workers_pb2.HeartbeatRequest, timeout: float) -> workers_pb2.HeartbeatResponse:
        self._call("Heartbeat")
        return workers_pb2.HeartbeatResponse(directive=self.directive)

    def RequestOpening(
        self, request: workers_pb2.RequestOpeningRequest, timeout: float
    ) -> workers_pb2.RequestOpeningResponse:
        self._call("RequestOpening")
        if self.job is not None:
            index = self.site.log_job_opening(self.job, request.attempt, self.resume)
            evidence = self.site.log.evidence(index, request.since_size)
        else:
            assert self.release is not None
            evidence = self.release.evidence
        answer = opening_response(evidence, self.site.sign_roster())
        self.tamper(answer)
        return answer

    def ReportEvents(
        self, request: workers_pb2.ReportEventsRequest, timeout: float
    ) -> workers_pb2.ReportEventsResponse:
        self._call("ReportEvents")
        for event in request.events:
            if event.stream_seq == len(self.events) + 1:
                self.events.append(event)
                self.on_event(event)
        return workers_pb2.ReportEventsResponse()

    def CreateArtifact(
        self, request: workers_pb2.CreateArtifactRequest, timeout: float
    ) -> workers_pb2.CreateArtifactResponse:
        self._call("CreateArtifact")
        self.artifacts.append(request)
        return workers_pb2.CreateArtifactResponse()

    def FinishJob(self, request: workers_pb2.FinishJobRequest, timeout: float) -> workers_pb2.FinishJobResponse:
        self._call("FinishJob")
        self.finished.append(request)
        return workers_pb2.FinishJobResponse()

    def FinishRelease(
        self, request: workers_pb2.FinishReleaseRequest, timeout: float
    ) -> workers_pb2.FinishReleaseResponse:
        self._call("FinishRelease")
        self.released.append(request)
        return workers_pb2.FinishReleaseResponse()

    # ------------------------------------------------------------ BlobService
    def GetUpload(self, request: blobs_pb2.GetUploadRequest, timeout: float) -> blobs_pb2.GetUploadResponse:
        self._call("GetUpload")
        have = self.uploads.setdefault(request.object_id, bytearray())
        return blobs_pb2.GetUploadResponse(committed_size=len(have), complete=self._complete(request.object_id))

    def WriteBlob(self, pieces: Iterator[blobs_pb2.WriteBlobRequest], timeout: float) -> blobs_pb2.WriteBlobResponse:
        name = ""
        for piece in pieces:
            name = piece.object_id or name
            assert piece.offset == len(self.uploads[name])
            self.uploads[name] += piece.data
            if piece.data:
                self._call("WriteBlob")
        return blobs_pb2.WriteBlobResponse(complete=self._complete(name))

    def _complete(self, object_id: str) -> bool:
        import hashlib
        import json

        for artifact in self.artifacts:
            if json.loads(artifact.sealed.manifest)["id"] == object_id:
                wanted = json.loads(artifact.sealed.trailer.payload)["ciphertext_sha256"]
                return bool(hashlib.sha256(self.uploads[object_id]).hexdigest() == wanted)
        return False

    def ReadBlob(self, request: blobs_pb2.ReadBlobRequest, timeout: float) -> Iterator[blobs_pb2.ReadBlobResponse]:
        data = self.blobs[request.object_id]
        for at in range(request.offset, len(data), 1000):
            self._call("ReadBlob")
            yield blobs_pb2.ReadBlobResponse(data=data[at : at + 1000])


@dataclass(frozen=True)
class FakeLeaseWork:
    """LeaseWork, which the agent calls as a future; at once its own result."""

    plane: FakeControlPlane

    def future(self, request: workers_pb2.LeaseWorkRequest, timeout: float) -> FakeLeaseWork:
        return self

    def result(self, timeout: float) -> workers_pb2.LeaseWorkResponse:
        self.plane._call("LeaseWork")
        return self.plane.work.get_nowait() if not self.plane.work.empty() else workers_pb2.LeaseWorkResponse()

    def cancel(self) -> bool:
        return True


def opening_response(evidence: LogEvidence, roster: Statement) -> workers_pb2.RequestOpeningResponse:
    """As the control plane answers."""
    return workers_pb2.RequestOpeningResponse(
        entry=evidence.entry,
        index=evidence.index,
        inclusion_proof=evidence.inclusion_proof,
        checkpoint=evidence.checkpoint,
        consistency_proof=evidence.consistency_proof,
        roster=statement_to_proto(roster),
    )


def granted(site: Site, sealed: Sealed, host: str = "host-1") -> workers_pb2.GrantedObject:
    """An object with the host's wrap."""
    key_id = site.hosts[host].identity.recipient.key_id
    return workers_pb2.GrantedObject(
        object_id=sealed.id,
        sealed=sealed_to_proto(sealed.object),
        wrap=common_pb2.Wrap(recipient_key_id=key_id, wrap=sealed.wraps[key_id]),
        size=len(sealed.ciphertext),
    )


def job_lease(
    control: FakeControlPlane, job: Job, attempt: int = 1, resume: tuple[Sealed, Statement] | None = None
) -> workers_pb2.JobLease:
    """Lease a job: the control plane then serves its blobs and logs its opening."""
    site = control.site
    control.job, control.resume = job, resume[0] if resume else None
    for item in (*job.inputs, *([resume[0]] if resume else [])):
        control.blobs[item.id] = item.ciphertext
    lease = workers_pb2.JobLease(
        job_id=job.authorisation.job_id,
        attempt=attempt,
        spec=job.spec,
        authorisation=statement_to_proto(job.statement),
        policy=statement_to_proto(job.policy),
        model=granted(site, job.inputs[0]),
    )
    lists = {"layer": lease.model_layers, "auxiliary_layer": lease.auxiliary_layers}
    for (role, _), sealed in zip(job.authorisation.places(), job.inputs, strict=True):
        if role in lists:
            lists[role].append(granted(site, sealed))
        else:
            getattr(lease, role).CopyFrom(granted(site, sealed))
    if resume is not None:
        point = workers_pb2.ResumePoint(object=granted(site, resume[0]), result=statement_to_proto(resume[1]), step=10)
        lease.resume.CopyFrom(point)
    return lease


@contextmanager
def threaded_keyagent(paths: HostPaths, clock: Callable[[], int]) -> Iterator[KeyAgent]:
    """A key agent in this process."""
    agent = KeyAgent(load_vault(paths.keyagent), Memory(paths.keyagent), clock, lambda _: None)
    access = Access(frozenset({os.getuid()}))
    stop, wake = os.pipe()
    listener = listen(paths.socket, access)
    thread = threading.Thread(target=serve, args=(listener, agent, access, stop, lambda _: None, ServiceManager({})))
    thread.start()
    try:
        yield agent
    finally:
        os.close(wake)
        thread.join()
        listener.close()
        os.close(stop)


@dataclass
class FakeHost:
    """A host whose trainer follows `script`."""

    site: Site
    control: FakeControlPlane
    paths: HostPaths
    host: Host
    log: list[dict[str, object]]
    processes: list[FakeProcess]
    scripts: list[Script]
    now: list[float]
    """The steady clock's time."""


@contextmanager
def fake_host(folder: Path, *, sandboxed: bool = True, reserve_bytes: int = 0) -> Iterator[FakeHost]:
    """Everything but the network, the sandbox and the trainer is real."""
    site = Site(1_800_000_000)
    control = FakeControlPlane(site)
    paths = write_directory(folder, site)
    log: list[dict[str, object]] = []
    processes: list[FakeProcess] = []
    scripts: list[Script] = []
    now = [1000.0]

    def launch(argv: Sequence[str], spec: SandboxSpec) -> FakeProcess:
        processes.append(FakeProcess(scripts.pop(0), spec))
        return processes[-1]

    place = Place(launch, scratch_bytes=1 << 20, memory_bytes=None, file_bytes=1 << 30, allow_gpu=False)
    with threaded_keyagent(paths, lambda: site.now):
        host = Host(
            control=control.control(),
            keyagent=paths.socket,
            spool=Spool(paths.spool, reserve_bytes),
            cache=ModelCache(paths.cache),
            sandboxed=sandboxed,
            place=place,
            clock=lambda: now[0],
            log=lambda fields: log.append(dict(fields)),
        )
        yield FakeHost(site, control, paths, host, log, processes, scripts, now)
