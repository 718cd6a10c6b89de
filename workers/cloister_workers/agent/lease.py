# SPDX-License-Identifier: Apache-2.0
"""Keeping a lease, and knowing for certain when it may be another's.

The control plane's clock decides when a lease ends; this host only knows when it last heard that it was kept.  So
it stops itself after `SAFE_SHARE` of the lease without such news, on a clock that also runs while a machine sleeps,
and the attempt number that goes with every write is what finally keeps a stale worker out.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Self

from cloister.api.v1 import workers_pb2
from cloister.errors import CloisterError
from cloister_workers.agent.errors import LeaseLostError, Stop, StopRequestedError

SAFE_SHARE = 0.8
BEATS_PER_LEASE = 4
MAX_INTERVAL_SECONDS = 5.0
"""Heartbeats also bring directives: a long lease must not make a cancellation wait."""
_STOPS = {
    workers_pb2.DIRECTIVE_CANCEL: Stop.CANCEL,
    workers_pb2.DIRECTIVE_PAUSE: Stop.PAUSE,
}


class Lease:
    """One lease: a job or release, and the attempt that fences it.  Safe for threads."""

    def __init__(
        self, work_id: str, attempt: int, seconds: float, clock: Callable[[], float], shutdown: threading.Event
    ) -> None:
        self.work_id = work_id
        self.attempt = attempt
        self.seconds = seconds
        self.draining = False
        """Whether nothing more is to be taken after this."""
        self._clock = clock
        self._shutdown = shutdown
        self._kept_at = clock()
        self._stop: Stop | None = None
        self._lost = threading.Event()
        self._on_lost: list[Callable[[], None]] = []
        self._lock = threading.Lock()

    @property
    def left(self) -> float:
        """Seconds until this host must take the lease for lost."""
        return self._kept_at + SAFE_SHARE * self.seconds - self._clock()

    @property
    def lost(self) -> bool:
        return self._lost.is_set() or self.left <= 0

    @property
    def stop(self) -> Stop | None:
        """What was asked for; cancelling comes before everything else."""
        if self._stop is not None:
            return self._stop
        return Stop.SHUTDOWN if self._shutdown.is_set() else None

    def check(self) -> None:
        """Raise LeaseLostError if the lease may be another's: called before everything that is written."""
        if self.lost:
            self.lose()
            raise LeaseLostError(f"the lease of {self.work_id}, attempt {self.attempt}, is lost")

    def check_going(self) -> None:
        """`check`, and raise StopRequestedError if the work is to be ended."""
        self.check()
        if (stop := self.stop) is not None:
            raise StopRequestedError(stop)

    def on_lost(self, action: Callable[[], None]) -> None:
        """Do this as soon as the lease is known to be lost; at once, if it is."""
        with self._lock:
            self._on_lost.append(action)
        if self._lost.is_set():
            action()

    def kept(self, asked_at: float, directive: workers_pb2.Directive.ValueType) -> None:
        """The control plane kept the lease some time after `asked_at`."""
        self._kept_at = max(self._kept_at, asked_at)
        self._stop = _STOPS.get(directive, self._stop)
        self.draining = self.draining or directive == workers_pb2.DIRECTIVE_DRAIN

    def lose(self) -> None:
        """Take the lease for lost: end the trainer, write nothing more."""
        self._lost.set()
        with self._lock:
            actions, self._on_lost = self._on_lost, []
        for action in actions:
            action()


Beat = Callable[[Lease, float], "workers_pb2.Directive.ValueType"]
"""(lease, timeout in seconds) -> directive; raises LeaseLostError or CloisterError."""


class LeaseKeeper:
    """A thread that keeps a lease until it is told to end."""

    def __init__(self, lease: Lease, beat: Beat, clock: Callable[[], float]) -> None:
        self._lease = lease
        self._beat = beat
        self._clock = clock
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lease", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        interval = min(MAX_INTERVAL_SECONDS, self._lease.seconds / BEATS_PER_LEASE)
        pause = 0.0  # the first beat goes out at once: it is news of the lease that is surely younger than the grant
        while not self._end.wait(max(0.0, min(pause, self._lease.left))):
            pause = self.beat_once(interval)
            if self._lease.lost:
                self._lease.lose()
                return

    def beat_once(self, interval: float) -> float:
        """One heartbeat; returns the seconds to wait for the next."""
        asked_at = self._clock()
        try:
            directive = self._beat(self._lease, max(0.1, min(interval, self._lease.left)))
        except LeaseLostError:
            self._lease.lose()
            return interval
        except CloisterError:
            return interval / 4  # there was no answer: ask again soon, as long as `left` lasts
        self._lease.kept(asked_at, directive)
        return interval
