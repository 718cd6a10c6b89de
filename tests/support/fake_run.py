# SPDX-License-Identifier: Apache-2.0
"""Running one attempt on a `FakeHost`, and a trainer that does everything right."""

from __future__ import annotations

import io
import threading

from cloister.api.v1 import workers_pb2
from cloister.sealed.bundle import write_bundle
from cloister_workers.agent.lease import Lease
from cloister_workers.agent.runner import run_job
from cloister_workers.protocol import (
    Checkpoint,
    DatasetRole,
    Evaluation,
    EvaluationPhase,
    MetricName,
    Progress,
    Rows,
    Stage,
    StageChange,
    StageStatus,
)
from cloister_workers.protocol import Result as ResultMessage
from fake_site import LEASE_SECONDS, FakeHost, job_lease
from fake_trainer import TrainerSide

ROWS = b'{"text":"CANARY","label":"CANARY"}\n' * 50
ACCURACY = {MetricName.EVAL_ACCURACY: 0.75}


def bundle(files: dict[str, bytes] | None = None) -> bytes:
    sink = io.BytesIO()
    write_bundle(list((files or {"adapter_config.json": b"{}"}).items()), sink)
    return sink.getvalue()


def run(
    host: FakeHost, *, attempt: int = 1, shutdown: threading.Event | None = None, **job: object
) -> workers_pb2.FinishJobRequest | None:
    """Run one attempt; returns what the control plane was told at the end."""
    leased = job_lease(host.control, host.site.job(training=host.site.dataset(ROWS), **job), attempt)  # type: ignore[arg-type]
    return run_lease(host, leased, shutdown)


def run_lease(
    host: FakeHost, leased: workers_pb2.JobLease, shutdown: threading.Event | None = None
) -> workers_pb2.FinishJobRequest | None:
    lease = Lease(leased.job_id, leased.attempt, LEASE_SECONDS, host.host.clock, shutdown or threading.Event())
    run_job(host.host, leased, lease)
    assert list(host.paths.spool.iterdir()) == []
    return host.control.finished[0] if host.control.finished else None


def good_trainer(side: TrainerSide) -> None:
    side.begin()
    side.channel.send(StageChange(name=Stage.VALIDATE, status=StageStatus.STARTED))
    rows = {"total": 50, "used": 50, "duplicates": 49, "truncated": 0, "tokens": 500, "labels": 1}
    side.channel.send(Rows(dataset=DatasetRole.TRAINING, **rows))
    side.channel.send(Evaluation(phase=EvaluationPhase.BEFORE, step=0, metrics={MetricName.EVAL_ACCURACY: 0.25}))
    for step in (1, 2):
        side.channel.send(
            Progress(
                step=step,
                max_steps=2,
                epoch=step / 2,
                metrics={MetricName.LOSS: 1.0 / step},
                losses=(1.0 / step,),
                trained_tokens=100 * step,
                eta_seconds=1.0,
            )
        )
    side.send_bundle(Checkpoint(step=1, metrics={}), bundle({"state.json": b"{}"}))
    side.send_bundle(ResultMessage(step=2, metrics=ACCURACY, trained_tokens=200), bundle())
