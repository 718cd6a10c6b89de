# SPDX-License-Identifier: Apache-2.0
"""Calls to the control plane, each within a lease: retried while it lasts, and never made after it is lost."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import grpc

from cloister.api.v1 import blobs_pb2, workers_pb2
from cloister.api.v1.blobs_pb2_grpc import BlobServiceStub
from cloister.api.v1.workers_pb2_grpc import WorkerServiceStub
from cloister.channel import translate
from cloister.errors import CloisterError, ConnectError, StorageError
from cloister_workers.agent.errors import HostFault, LeaseLostError, LogBehindError, Stop

if TYPE_CHECKING:
    from cloister_workers.agent.lease import Lease

Q = TypeVar("Q")
R = TypeVar("R")

DEADLINE_SECONDS = 20.0
LOOK_SECONDS = 0.25
"""How often a host that waits for work looks whether it is to stop."""
STREAM_SECONDS = 600.0
"""A stream of a blob is begun anew after this; it goes on where it stopped."""
MAX_BACKOFF_SECONDS = 5.0
SHUTDOWN_TRIES = 5
"""A host that is being shut down does not wait for the control plane to come back."""
LEASE_LOST, LOG_BEHIND = "LEASE_LOST", "LOG_BEHIND_CALLER"


@dataclass(frozen=True)
class Stubs:
    """The services that a worker host calls, on one channel."""

    worker: WorkerServiceStub
    blobs: BlobServiceStub

    @classmethod
    def on(cls, channel: grpc.Channel) -> Stubs:
        return cls(WorkerServiceStub(channel), BlobServiceStub(channel))


class ControlPlane:
    """The services that a worker host calls."""

    def __init__(
        self,
        stubs: Callable[[], Stubs],
        pause: Callable[[float], object],
        alive: Callable[[], None] = lambda: None,
    ) -> None:
        """`stubs` is asked anew for each call, because a renewed certificate needs another channel.

        `alive` is told whenever this host waits for work or keeps the lease of some: that its loop goes round.
        """
        self._stubs = stubs
        self._pause = pause
        self._alive = alive

    # ---------------------------------------------------------------- without a lease
    def lease_work(
        self, request: workers_pb2.LeaseWorkRequest, stop: threading.Event
    ) -> workers_pb2.LeaseWorkResponse | None:
        """Ask once for work; None where `stop` was set first.  Raises CloisterError.

        A lease that was granted to a call given up here is taken back at this host's next question, or expires.
        """
        call = self._stubs().worker.LeaseWork.future(request, timeout=request.wait_seconds + DEADLINE_SECONDS)
        while not stop.is_set():
            self._alive()
            try:
                return call.result(timeout=LOOK_SECONDS)
            except grpc.FutureTimeoutError:
                continue
            except grpc.RpcError as error:
                raise translate(error) from None
        call.cancel()
        return None

    def heartbeat(self, lease: Lease, timeout: float) -> workers_pb2.Directive.ValueType:
        """Keep a lease, once.  Raises LeaseLostError, CloisterError."""
        self._alive()
        request = workers_pb2.HeartbeatRequest(work_id=lease.work_id, attempt=lease.attempt)
        try:
            return self._stubs().worker.Heartbeat(request, timeout=timeout).directive
        except grpc.RpcError as error:
            failure = translate(error)
            if failure.reason == LEASE_LOST:
                raise LeaseLostError(f"the lease of {lease.work_id} is lost") from None
            raise failure from None

    # ---------------------------------------------------------------- within a lease
    def request_opening(self, lease: Lease, since_size: int) -> workers_pb2.RequestOpeningResponse:
        """Have the opening logged, and get its evidence.  Raises LeaseLostError, AttemptError."""
        request = workers_pb2.RequestOpeningRequest(work_id=lease.work_id, attempt=lease.attempt, since_size=since_size)
        return self.within(lease, lambda: self._stubs().worker.RequestOpening(request, timeout=DEADLINE_SECONDS))

    def report(self, lease: Lease, request: workers_pb2.ReportEventsRequest) -> None:
        """Record events.  Raises LeaseLostError, AttemptError."""
        self.within(lease, lambda: self._stubs().worker.ReportEvents(request, timeout=DEADLINE_SECONDS))

    def create_artifact(self, lease: Lease, request: workers_pb2.CreateArtifactRequest) -> None:
        """Register a sealed object.  Raises LeaseLostError, AttemptError."""
        self.within(lease, lambda: self._stubs().worker.CreateArtifact(request, timeout=DEADLINE_SECONDS))

    def finish_job(self, lease: Lease, request: workers_pb2.FinishJobRequest) -> None:
        """End a job's lease.  Raises LeaseLostError, AttemptError."""
        self.within(lease, lambda: self._stubs().worker.FinishJob(request, timeout=DEADLINE_SECONDS))

    def finish_release(self, lease: Lease, request: workers_pb2.FinishReleaseRequest) -> None:
        """End a release's lease.  Raises LeaseLostError, AttemptError."""
        self.within(lease, lambda: self._stubs().worker.FinishRelease(request, timeout=DEADLINE_SECONDS))

    def committed_size(self, lease: Lease, object_id: str) -> blobs_pb2.GetUploadResponse:
        """How much of an upload has arrived.  Raises LeaseLostError, AttemptError."""
        request = blobs_pb2.GetUploadRequest(object_id=object_id)
        return self.within(lease, lambda: self._stubs().blobs.GetUpload(request, timeout=DEADLINE_SECONDS))

    def write_blob(self, pieces: Iterator[blobs_pb2.WriteBlobRequest]) -> blobs_pb2.WriteBlobResponse:
        """One stream of an upload.  Raises CloisterError."""
        try:
            return self._stubs().blobs.WriteBlob(pieces, timeout=STREAM_SECONDS)
        except grpc.RpcError as error:
            raise translate(error) from None

    def read_blob(self, object_id: str, offset: int) -> Iterator[bytes]:
        """One stream of a download.  Raises CloisterError."""
        request = blobs_pb2.ReadBlobRequest(object_id=object_id, offset=offset)
        try:
            for message in self._stubs().blobs.ReadBlob(request, timeout=STREAM_SECONDS):
                yield message.data
        except grpc.RpcError as error:
            raise translate(error) from None

    # ---------------------------------------------------------------- how often
    def within(self, lease: Lease, call: Callable[[], R]) -> R:
        """`call`, again while there is no answer and the lease lasts.  Raises LeaseLostError, AttemptError."""
        failures = 0
        while True:
            lease.check()
            try:
                return call()
            except (grpc.RpcError, CloisterError) as error:
                failure = translate(error) if isinstance(error, grpc.RpcError) else error
                self.give_up(lease, failure)
                failures += 1
                if lease.stop is Stop.SHUTDOWN and failures >= SHUTDOWN_TRIES:
                    raise HostFault("CONTROL_PLANE_LOST", "the control plane does not answer") from None
                self.back_off(failures)

    def give_up(self, lease: Lease, failure: CloisterError) -> None:
        """Raise what a failure means for the attempt, unless it is one to try again after."""
        if failure.reason == LEASE_LOST:
            lease.lose()
            raise LeaseLostError(f"the lease of {lease.work_id}, attempt {lease.attempt}, is lost") from None
        if isinstance(failure, ConnectError):
            return
        if failure.reason == LOG_BEHIND:
            raise LogBehindError("EVIDENCE_REFUSED", "the log is behind the one that this host remembers (ROLLBACK)")
        if isinstance(failure, StorageError):
            raise HostFault("STORE_FULL", "the site's store has no space left; an administrator must free some")
        raise HostFault("CONTROL_PLANE_REFUSED", f"the control plane refused a call ({failure.reason or 'UNKNOWN'})")

    def back_off(self, failures: int) -> None:
        """Wait longer after every failure."""
        self._pause(min(MAX_BACKOFF_SECONDS, 0.1 * 2.0 ** min(failures, 10)))
