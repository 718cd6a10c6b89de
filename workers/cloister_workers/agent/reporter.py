# SPDX-License-Identifier: Apache-2.0
"""Sends a job's events about once a second, in order, each exactly once: numbers are given on the first sending."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Self

from cloister.api.v1 import workers_pb2
from cloister_workers.agent import events
from cloister_workers.agent.control import ControlPlane
from cloister_workers.agent.errors import AgentError
from cloister_workers.agent.lease import Lease

INTERVAL_SECONDS = 1.0
MAX_BATCH = 200
"""Events in one call, so that a call stays far below the message limit."""


class Reporter:
    """A queue of events and the thread that sends them.  Safe for threads."""

    def __init__(self, control: ControlPlane, lease: Lease) -> None:
        self._control = control
        self._lease = lease
        self._waiting: list[workers_pb2.WorkerEvent] = []
        self._seq = 0
        self._lock = threading.Lock()
        self._sending = threading.Lock()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reporter", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def add(self, *new: workers_pb2.WorkerEvent) -> None:
        """Have these sent soon.  A progress event that still waits is merged with the one that follows it."""
        with self._lock:
            for event in new:
                both = None
                if self._waiting and event.type == "progress" == self._waiting[-1].type:
                    both = events.merged(self._waiting[-1], event)
                if both is None:
                    self._waiting.append(event)
                else:
                    self._waiting[-1] = both

    def flush(self) -> None:
        """Send everything that waits; returns when it is recorded.  Raises LeaseLostError, AttemptError."""
        with self._sending:
            while batch := self._take():
                request = workers_pb2.ReportEventsRequest(
                    job_id=self._lease.work_id, attempt=self._lease.attempt, events=batch
                )
                self._control.report(self._lease, request)

    def _take(self) -> Sequence[workers_pb2.WorkerEvent]:
        with self._lock:
            batch, self._waiting = self._waiting[:MAX_BATCH], self._waiting[MAX_BATCH:]
        for event in batch:
            self._seq += 1
            event.stream_seq = self._seq
        return batch

    def _run(self) -> None:
        while not self._end.wait(INTERVAL_SECONDS):
            try:
                self.flush()
            except AgentError:
                return  # the lease is lost, or the control plane wants no events: the attempt notices by itself
