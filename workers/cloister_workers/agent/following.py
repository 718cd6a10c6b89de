# SPDX-License-Identifier: Apache-2.0
"""Following a trainer: its words become events, its bundles artifacts, and what it must be told is told."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cloister.api.v1 import jobs_pb2, models_pb2
from cloister_workers.agent import artifacts, events, outcome
from cloister_workers.agent.artifacts import Bundle
from cloister_workers.agent.debias import FigureBook
from cloister_workers.agent.errors import HostFault, JobFault, Stop, StopRequestedError
from cloister_workers.agent.lease import Lease
from cloister_workers.agent.outcome import Outcome
from cloister_workers.agent.reporter import Reporter
from cloister_workers.agent.training import Decrypt, Trainer
from cloister_workers.agent.transfer import Transfer
from cloister_workers.keyagent.client import JobSession
from cloister_workers.messages import (
    Cancel,
    CancelledAt,
    Checkpoint,
    DatasetRole,
    Evaluation,
    EvaluationPhase,
    Failed,
    Figure,
    Finding,
    Judged,
    Metrics,
    OddRows,
    Pause,
    PausedAt,
    Progress,
    Ready,
    Report,
    Reported,
    Result,
    RowErrors,
    Rows,
    StageChange,
)
from cloister_workers.protocol import Message

LOOK_SECONDS = 0.2
"""How often directives are looked at while a trainer is silent."""
GRACE_SECONDS = 60.0
"""Time in which a trainer must stop by itself after it was told to."""
NOT_STORED = "a checkpoint could not be stored; training goes on without it"


def _plain(metrics: Metrics) -> dict[str, float]:
    return {name.value: value for name, value in metrics.items()}


@dataclass
class Follower:
    """One trainer's attempt."""

    trainer: Trainer
    session: JobSession
    lease: Lease
    reporter: Reporter
    transfer: Transfer
    folder: Path
    clock: Callable[[], float]
    book: FigureBook
    """Numbers of a de-biasing job."""
    metrics_before: dict[str, float] = field(default_factory=dict)
    _told: Stop | None = None
    _deadline: float = 0.0

    def follow(self, spec: Mapping[str, object], pours: Mapping[DatasetRole, Decrypt]) -> Outcome:
        """Run the trainer to its end.  Raises PeerClosed, LeaseLostError, StopRequestedError, AttemptError."""
        started = False
        while True:
            if started:
                self._obey()
            else:
                self.lease.check_going()
            received = self.trainer.next(LOOK_SECONDS)
            if received is None:
                continue
            try:
                if isinstance(received.message, Ready) and not started:
                    started = True
                    self.trainer.start(spec, self.lease.attempt, pours, self.session.gate)
                    continue
                if not started:
                    raise JobFault("PROTOCOL", "the trainer spoke before it was started; it was ended")
                ended = self._take(received.message, received.fds)
            finally:
                for fd in received.fds:
                    os.close(fd)
            if ended is not None:
                return ended

    def _obey(self) -> None:
        """Pass on what the control plane wants, once, and end a trainer that does not follow."""
        self.lease.check()
        stop = self.lease.stop
        if stop is Stop.SHUTDOWN:
            raise StopRequestedError(stop)
        if stop is not None and stop is not self._told:
            self._told, self._deadline = stop, self.clock() + GRACE_SECONDS
            self.trainer.send(Cancel() if stop is Stop.CANCEL else Pause())
        if self._told is not None and self.clock() > self._deadline:
            if self._told is Stop.PAUSE:
                raise HostFault("TRAINER_STUCK", "the trainer did not pause in time; it was ended")
            raise StopRequestedError(self._told)

    def _take(self, message: Message, fds: tuple[int, ...]) -> Outcome | None:
        match message:
            case Checkpoint():
                self._checkpoint(message, fds[0])
            case Report():
                self._page(fds[0])
            case Result():
                return self._result(message, fds[0])
            case Reported():
                return self._reported(message, fds[0])
            case Failed():
                raise self._failure(message)
            case CancelledAt():
                return outcome.of_stop(Stop.CANCEL)
            case PausedAt():
                return outcome.of_stop(Stop.PAUSE)
            case _:
                self._report(message)
        return None

    def _report(self, message: Message) -> None:
        match message:
            case StageChange():
                self.reporter.add(*events.stage_change(message))
            case Rows():
                self.reporter.add(events.rows(message))
            case RowErrors():
                self.reporter.add(*events.row_errors(message))
            case Progress():
                self.reporter.add(*events.progress(message))
            case OddRows():
                self.reporter.add(events.odd_rows(message))
            case Evaluation():
                if message.phase is EvaluationPhase.BEFORE:
                    self.metrics_before = _plain(message.metrics)
                self.reporter.add(events.evaluation(message))
            case Figure() | Finding():
                self.book.add(message)
            case Judged():
                self.book.add(message)
                self.reporter.add(events.verdict(message))
            case _:
                raise JobFault("PROTOCOL", "the trainer repeated itself; it was ended")

    def _failure(self, message: Failed) -> Exception:
        # An input that did not flow explains a trainer that could not read it, and says whose fault it was.
        return self.trainer.feed_failure or outcome.trainer_failure(message)

    def _checkpoint(self, message: Checkpoint, fd: int) -> None:
        """A checkpoint is a convenience: where only storing it fails, training goes on."""
        bundle = Bundle("state", fd, message.step, _plain(message.metrics), self.metrics_before)
        try:
            made, path = artifacts.seal(self.session, bundle, self.transfer, self.folder)
            artifacts.store(self.lease, bundle, made, path, self.transfer)
        except HostFault as fault:
            if fault.code not in ("DISK_FULL", "STORE_FULL"):
                raise
            self.reporter.add(events.note("warn", NOT_STORED, {"step": float(message.step)}))
            return
        self.reporter.add(events.checkpoint(message.step, made.size))

    def _page(self, fd: int) -> None:
        """A report is in the store before the result that binds it is signed."""
        bundle = Bundle("report", fd, 0, {}, {})
        made, path = artifacts.seal(self.session, bundle, self.transfer, self.folder)
        artifacts.store(self.lease, bundle, made, path, self.transfer)
        self.reporter.add(events.report(made.size))

    def _result(self, message: Result, fd: int) -> Outcome:
        figures = self.book.payload()
        bundle = Bundle("export", fd, message.step, _plain(message.metrics), self.metrics_before, figures)
        made, path = artifacts.seal(self.session, bundle, self.transfer, self.folder)
        self.reporter.add(events.step("seal", "finished"), events.step("publish", "started"))
        artifacts.store(self.lease, bundle, made, path, self.transfer)
        self.reporter.add(events.step("publish", "finished"))
        return Outcome(
            state=jobs_pb2.JOB_STATE_SUCCEEDED,
            artifact_id=made.object_id,
            metrics_before=self.metrics_before,
            metrics_after=_plain(message.metrics),
            trained_tokens=message.trained_tokens,
            layer_kind=models_pb2.LayerKind.Value(f"LAYER_KIND_{made.layer.upper()}"),
            layer_digest=made.files_sha256,
        )

    def _reported(self, message: Reported, fd: int) -> Outcome:
        """The end of a job that makes no version: its report is what there is, and is signed for."""
        bundle = Bundle("report", fd, 0, _plain(message.metrics), self.metrics_before)
        self.reporter.add(events.step("seal", "started"))
        made, path = artifacts.seal(self.session, bundle, self.transfer, self.folder)
        self.reporter.add(events.step("seal", "finished"), events.step("publish", "started"))
        artifacts.store(self.lease, bundle, made, path, self.transfer)
        self.reporter.add(events.report(made.size), events.step("publish", "finished"))
        return Outcome(
            state=jobs_pb2.JOB_STATE_SUCCEEDED,
            artifact_id=made.object_id,
            metrics_before=self.metrics_before,
            metrics_after=_plain(message.metrics),
        )
