# SPDX-License-Identifier: Apache-2.0
"""What the agent makes of a trainer's progress, judged by the control plane's own check."""

from __future__ import annotations

import threading

import pytest

from cloister.api.v1 import workers_pb2
from cloister_server.queue.reports import check
from cloister_workers.agent import events
from cloister_workers.agent.lease import Lease
from cloister_workers.agent.reporter import Reporter
from cloister_workers.messages import MAX_LOSSES, MetricName, Progress
from fake_site import FakeHost

METRICS = dict.fromkeys(MetricName, 1.0)
"""More figures than a trainer ever gives at once."""


def progress(last: int, losses: int) -> Progress:
    return Progress(
        step=last,
        max_steps=10_000,
        epoch=1.0,
        metrics=METRICS,
        losses=tuple(float(step) for step in range(last - losses + 1, last + 1)),
        trained_tokens=last,
        eta_seconds=1.0,
    )


def losses_of(found: list[workers_pb2.WorkerEvent]) -> dict[int, float]:
    return {
        int(name.removeprefix(events.LOSS)): value
        for event in found
        for name, value in event.data.items()
        if name.startswith(events.LOSS)
    }


@pytest.mark.parametrize("losses", [0, 1, events.MAX_LOSSES, events.MAX_LOSSES + 1, MAX_LOSSES])
def test_the_control_plane_takes_any_progress(losses: int) -> None:
    """However many steps a second brought, every event passes the server's check and no loss is missing."""
    made = events.progress(progress(5000, losses))
    for event in made:
        check(event)
    assert losses_of(made) == {step: float(step) for step in range(5001 - losses, 5001)}
    assert made[-1].progress.current == 5000
    assert [event.data["step"] for event in made] == sorted(event.data["step"] for event in made)


def test_progress_that_waits_is_merged_as_far_as_an_event_holds(host: FakeHost) -> None:
    """A reporter that is late sends few events, none of them too large, with every step's loss."""
    lease = Lease("job", 1, 60, host.host.clock, threading.Event())
    reporter = Reporter(host.host.control, lease)
    for last in range(70, 2101, 70):
        reporter.add(*events.progress(progress(last, 70)))
    reporter.flush()
    sent = host.control.events
    for event in sent:
        check(event)
    assert losses_of(sent) == {step: float(step) for step in range(1, 2101)}
    assert len(sent) == 2100 // (2 * 70)
