# SPDX-License-Identifier: Apache-2.0
"""The agent's main loop: one piece of work at a time, until it is told to stop or to drain."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

import cloister
from cloister.api.v1 import workers_pb2
from cloister.errors import CloisterError
from cloister_workers.agent.host import Host
from cloister_workers.agent.lease import Lease
from cloister_workers.agent.releasing import run_release
from cloister_workers.agent.runner import run_job

MAX_WAIT_SECONDS = 30
MAX_BACKOFF_SECONDS = 30.0


def nobody(_: str) -> None:
    """For a loop that nobody watches."""


@dataclass(frozen=True)
class Loop:
    """Asks for work and does it."""

    host: Host
    gpus: int
    poll_seconds: int
    stop: threading.Event
    jitter: Callable[[], float]
    """A number from 0 to 1, so that many hosts do not come back at the same moment."""
    tell: Callable[[str], None] = nobody
    """Told in one line what this host does: fixed words and ids."""

    def run(self, *, once: bool = False) -> None:
        """Work until `stop` is set, a lease says to drain, or, with `once`, one piece of work is done."""
        failures = 0
        while not self.stop.is_set():
            try:
                answer = self.host.control.lease_work(self._request(), self.stop)
            except CloisterError as error:
                failures += 1
                self.host.log({"event": "no_control_plane", "reason": error.reason, "message": str(error)})
                longest = min(MAX_BACKOFF_SECONDS, 0.5 * 2.0 ** min(failures, 10))
                self.stop.wait(longest * (0.5 + 0.5 * self.jitter()))
                continue
            failures = 0
            if answer is None or answer.WhichOneof("work") is None:
                continue
            if self._do(answer) or once:
                return

    def _request(self) -> workers_pb2.LeaseWorkRequest:
        return workers_pb2.LeaseWorkRequest(
            wait_seconds=min(self.poll_seconds, MAX_WAIT_SECONDS),
            gpus=self.gpus,
            worker_version=cloister.__version__,
        )

    def _do(self, answer: workers_pb2.LeaseWorkResponse) -> bool:
        """Do one piece of work; returns whether nothing more is to be taken."""
        is_job = answer.WhichOneof("work") == "job"
        work_id = answer.job.job_id if is_job else answer.release.release_id
        attempt = answer.job.attempt if is_job else answer.release.attempt
        lease = Lease(work_id, attempt, answer.lease_seconds, self.host.clock, self.stop)
        self.tell(f"{'job' if is_job else 'release'} {work_id}, attempt {attempt}")
        if is_job:
            run_job(self.host, answer.job, lease)
        else:
            run_release(self.host, answer.release, lease)
        self.tell("waiting for work")
        return lease.draining
