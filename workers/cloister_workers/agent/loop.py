# SPDX-License-Identifier: Apache-2.0
"""The agent's main loop: one piece of work at a time, until it is told to stop or to drain.

Work has few attempts, and a broken host must not use them up: it asks for none while its key agent does not answer, and
after an attempt that failed by its own fault it waits, longer each time, so that another host can come first.
"""

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
from cloister_workers.keyagent import client
from cloister_workers.keyagent.errors import KeyAgentError

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
    between: Callable[[], None] = lambda: None
    """Called between two pieces of work."""
    alive: Callable[[], None] = lambda: None
    """Told with every turn, also while there is nobody to ask."""

    def run(self, *, once: bool = False) -> None:
        """Work until `stop` is set, a lease says to drain, or, with `once`, one piece of work is done."""
        failures = faults = 0
        while not self.stop.is_set():
            self.alive()
            try:
                self._ask_key_agent()
                answer = self.host.control.lease_work(self._request(), self.stop)
            except (CloisterError, KeyAgentError) as error:
                failures += 1
                self.host.log(_why_none(error))
                self._wait(failures)
                continue
            failures = 0
            if answer is None:
                continue
            if answer.WhichOneof("work") is not None:
                lease = self._lease(answer)
                faults = 0 if self._do(answer, lease) else faults + 1
                if lease.draining or once:
                    return
            self.between()
            if faults:
                self._wait(faults)

    def _ask_key_agent(self) -> None:
        """Raises KeyAgentError where it does not answer."""
        connection = client.Connection(self.host.keyagent)
        try:
            client.status(connection)
        finally:
            connection.close()

    def _wait(self, times: int) -> None:
        """After so many failures in a row; a stop ends it."""
        longest = min(MAX_BACKOFF_SECONDS, 0.5 * 2.0 ** min(times, 10))
        self.stop.wait(longest * (0.5 + 0.5 * self.jitter()))

    def _request(self) -> workers_pb2.LeaseWorkRequest:
        return workers_pb2.LeaseWorkRequest(
            wait_seconds=min(self.poll_seconds, MAX_WAIT_SECONDS),
            gpus=self.gpus,
            worker_version=cloister.__version__,
            sandboxed=self.host.sandboxed,
        )

    def _lease(self, answer: workers_pb2.LeaseWorkResponse) -> Lease:
        is_job = answer.WhichOneof("work") == "job"
        work_id = answer.job.job_id if is_job else answer.release.release_id
        attempt = answer.job.attempt if is_job else answer.release.attempt
        return Lease(work_id, attempt, answer.lease_seconds, self.host.clock, self.stop)

    def _do(self, answer: workers_pb2.LeaseWorkResponse, lease: Lease) -> bool:
        """Do one piece of work; returns whether this host did its part."""
        kind = answer.WhichOneof("work")
        self.tell(f"{kind} {lease.work_id}, attempt {lease.attempt}")
        did = run_job(self.host, answer.job, lease) if kind == "job" else run_release(self.host, answer.release, lease)
        self.tell("waiting for work")
        return did


def _why_none(error: CloisterError | KeyAgentError) -> dict[str, object]:
    """A line of the log: why no work is asked for."""
    if isinstance(error, KeyAgentError):
        return {"event": "no_key_agent", "message": str(error)}
    return {"event": "no_control_plane", "reason": error.reason, "message": str(error)}
