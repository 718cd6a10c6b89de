# SPDX-License-Identifier: Apache-2.0
"""Counting what happens in this process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, disable_created_metrics

from cloister.evidence.entry import Event
from cloister_server.metrics import catalogue
from cloister_server.metrics.catalogue import Metric

LEASE_LOST = "job.lease.lost"
_CALL_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0)
_APPEND_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


@dataclass
class Outcome:
    """How a call ends: the name of its status code."""

    code: str = "OK"


class Recorder:
    """Counters of one process, in a registry of their own.  Safe from any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` gives seconds that never go back."""
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each counter, which no rule asks for
        self.registry = CollectorRegistry()
        self._clock = clock
        self._calls = self._counter(catalogue.CALLS)
        self._call_seconds = self._histogram(catalogue.CALL_SECONDS, _CALL_BUCKETS)
        self._entries = self._counter(catalogue.ENTRIES)
        self._append_seconds = self._histogram(catalogue.APPEND_SECONDS, _APPEND_BUCKETS)
        self._append_failures = self._counter(catalogue.APPEND_FAILURES)
        self._leases_lost = self._counter(catalogue.LEASES_LOST)
        self._notices_sent = self._counter(catalogue.NOTICES_SENT)
        self._notices_failed = self._counter(catalogue.NOTICES_FAILED)
        self._notices_given_up = self._counter(catalogue.NOTICES_GIVEN_UP)
        self._serving = Gauge(catalogue.SERVING.name, catalogue.SERVING.meaning, registry=self.registry)
        ProcessCollector(registry=self.registry)

    @contextmanager
    def call(self, method: str) -> Iterator[Outcome]:
        """Measure one call of a method (`/package.Service/Method`), whose end the caller writes down."""
        outcome, began = Outcome(), self._clock()
        try:
            yield outcome
        except (asyncio.CancelledError, GeneratorExit):
            outcome.code = "CANCELLED"  # the caller went away, or its time was over
            raise
        finally:
            name = _short(method)
            self._calls.labels(name, outcome.code).inc()
            self._call_seconds.labels(name).observe(self._clock() - began)

    @contextmanager
    def append(self) -> Iterator[None]:
        """Measure one append to the log."""
        began = self._clock()
        try:
            yield
        except Exception:
            self._append_failures.inc()
            raise
        finally:
            self._append_seconds.observe(self._clock() - began)

    def committed(self, events: Sequence[Event]) -> None:
        """These entries are in the log now."""
        for event in events:
            self._entries.labels(event.action).inc()
            if event.action == LEASE_LOST:
                self._leases_lost.inc()

    def notice_sent(self, target: str) -> None:
        """`target` is "command" or "url"."""
        self._notices_sent.labels(target).inc()

    def notice_failed(self, target: str, *, given_up: bool) -> None:
        """One delivery failed; whether it was the last."""
        self._notices_failed.labels(target).inc()
        if given_up:
            self._notices_given_up.labels(target).inc()

    def serving(self, *, now: bool) -> None:
        """Whether the site serves."""
        self._serving.set(now)

    def _counter(self, metric: Metric) -> Counter:
        return Counter(metric.name, metric.meaning, metric.labels, registry=self.registry)

    def _histogram(self, metric: Metric, buckets: Sequence[float]) -> Histogram:
        return Histogram(metric.name, metric.meaning, metric.labels, buckets=buckets, registry=self.registry)


def _short(method: str) -> str:
    """`Service/Method`."""
    return method.rpartition(".")[2]
