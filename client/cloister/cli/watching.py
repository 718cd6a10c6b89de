# SPDX-License-Identifier: Apache-2.0
"""A job as it runs: stage, bar, loss, rate and time left on stderr; a short summary on stdout at the end."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

import click

from cloister.api.v1 import jobs_pb2
from cloister.cli.forecast import waiting_words
from cloister.cli.output import print_fields, print_message, state_name
from cloister.cli.summary import figures
from cloister.errors import CloisterError, JobFailedError

if TYPE_CHECKING:
    from rich.progress import Progress

    from cloister.client import Client

SHOWN = (("loss", "loss"), ("train_loss", "loss"), ("learning_rate", "lr"), ("train_lr", "lr"))


class _View(Protocol):
    """Where progress is drawn."""

    def event(self, event: jobs_pb2.JobEvent) -> None:
        """Something happened."""

    def job(self, found: jobs_pb2.Job) -> None:
        """The job as it is now."""


def watch_job(client: Client, job_id: str, after_seq: int, *, as_json: bool) -> None:
    """Watch to the end.  Raises JobFailedError unless the job succeeded."""
    final: jobs_pb2.Job | None = None
    with _view() as view:
        for message in client.jobs.watch(job_id, after_seq):
            kind = message.WhichOneof("kind")
            if kind == "event":
                view.event(message.event)
                if as_json:
                    print_message(message.event)
            elif kind == "heartbeat":
                view.job(message.heartbeat)
            else:
                final = message.terminal
    if final is None:
        raise CloisterError(f"the stream of job {job_id} ended; watch it again")
    _summarise(client, final, as_json=as_json)


def error_words(found: jobs_pb2.Job) -> str:
    """Why a job failed, with the setting to correct where it is one; empty where it did not."""
    if not found.HasField("error"):
        return ""
    hint = f"; correct {found.error.param}" if found.error.param else ""
    return f"{found.error.code}: {found.error.message}{hint}"


def _summarise(client: Client, final: jobs_pb2.Job, *, as_json: bool) -> None:
    if as_json:
        print_message(final)
    else:
        print_fields([("job", final.id), ("state", _state(final)), *figures(client, final)])
    if final.state != jobs_pb2.JOB_STATE_SUCCEEDED:
        why = error_words(final) or final.state_reason
        hint = "" if final.error.param else f"; see: cloister job show {final.id}"
        raise JobFailedError(f"job {final.id} {_state(final)}: {why or 'no reason given'}{hint}")


@contextmanager
def _view() -> Iterator[_View]:
    if not sys.stderr.isatty():
        yield _Lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[figures]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield _Bar(progress)


def _figures_line(metrics: Mapping[str, float], eta_seconds: float) -> str:
    parts = [f"{label} {metrics[name]:.4g}" for name, label in SHOWN if name in metrics]
    if eta_seconds > 0:
        minutes, seconds = divmod(round(eta_seconds), 60)
        parts.append(f"{minutes}:{seconds:02} left")
    return "  ".join(parts)


class _Lines:
    """For a log file: one line per event that is not mere progress."""

    def event(self, event: jobs_pb2.JobEvent) -> None:
        if event.type != "progress":
            figures = " ".join(f"{name}={value:.6g}" for name, value in sorted(event.data.items()))
            click.echo(f"{event.seq:>5} {event.level:<5} {event.type}: {event.message} {figures}".rstrip(), err=True)

    def job(self, found: jobs_pb2.Job) -> None:
        """Say nothing: heartbeats would fill the file."""


class _Bar:
    """For a terminal."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("waiting", total=None, figures="")

    def event(self, event: jobs_pb2.JobEvent) -> None:
        data = dict(event.data)
        if event.type in ("step", "state"):
            self._progress.update(self._task, description=event.message[:30])
        elif event.type == "progress":
            figures = _figures_line(data, data.get("eta_seconds", 0.0))
            total = data.get("total") or data.get("max_steps")
            done = data.get("current", data.get("step", 0.0))
            self._progress.update(self._task, completed=done, total=total, figures=figures)
        if event.level in ("warn", "error"):
            self._progress.console.print(f"{event.level}: {event.message}", markup=False, highlight=False)

    def job(self, found: jobs_pb2.Job) -> None:
        now = found.progress
        figures = _figures_line(dict(now.metrics), now.eta_seconds)
        figures = waiting_words(found) or figures
        self._progress.update(
            self._task, description=_stage(found), completed=now.current, total=now.total or None, figures=figures
        )


def _state(found: jobs_pb2.Job) -> str:
    return state_name(jobs_pb2.JobState.DESCRIPTOR, found.state)


def _stage(found: jobs_pb2.Job) -> str:
    """The stage that is running, else the state."""
    running = [step.name for step in found.steps if step.status == "started"]
    return running[-1] if running else _state(found)
