# SPDX-License-Identifier: Apache-2.0
"""What the control plane is told of a job: fixed words and figures, made from the trainer's closed messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cloister.api.v1 import jobs_pb2, workers_pb2
from cloister_workers.messages import (
    Evaluation,
    EvaluationPhase,
    Judged,
    MetricName,
    Metrics,
    OddRows,
    Progress,
    RowErrors,
    Rows,
    Stage,
    StageChange,
    StageStatus,
)

_FIGURES = 256  # that the control plane takes in one event
MAX_LOSSES = _FIGURES - len(MetricName) - len(("step", "max_steps"))
"""Losses of single steps in one event, beside all metrics that there are; more go into further events."""
LOSS = "train_loss."
_NAMES = {"loss": "train_loss", "learning_rate": "train_lr", "grad_norm": "train_grad_norm"}
_STEPS = {
    Stage.VALIDATE: "validate",
    Stage.TRAIN: "train",
    Stage.EVALUATE: "evaluate",
    Stage.MITIGATE: "mitigate",
    Stage.JUDGE: "judge",
    Stage.INDEX: "index",
    Stage.SELECT: "select",
    Stage.INFER: "infer",
    Stage.EXPORT: "seal",
}


def figures(metrics: Metrics | Mapping[str, float]) -> dict[str, float]:
    """Metrics by the names that a team knows."""
    return {_NAMES.get(str(name), str(name)): value for name, value in metrics.items()}


def step(name: str, status: str) -> workers_pb2.WorkerEvent:
    """A stage begins, is finished or has failed."""
    level = "error" if status == "failed" else "info"
    stage = jobs_pb2.JobStep(name=name, status=status)
    return workers_pb2.WorkerEvent(type="step", level=level, message=f"{name} {status}", step=stage)


def stage_change(message: StageChange) -> list[workers_pb2.WorkerEvent]:
    """A stage of the trainer.  The end of its export is not told: sealing goes on in the agent."""
    if message.name is Stage.EXPORT and message.status is StageStatus.FINISHED:
        return []
    return [step(_STEPS[message.name], message.status.value)]


def note(level: str, text: str, data: Mapping[str, float] | None = None) -> workers_pb2.WorkerEvent:
    """A remark; `text` is one of this package's fixed sentences."""
    return workers_pb2.WorkerEvent(type="message", level=level, message=text, data=dict(data or {}))


def rows(message: Rows) -> workers_pb2.WorkerEvent:
    """What a dataset holds."""
    names = ("total", "used", "duplicates", "truncated", "tokens", "labels")
    data = {name: float(getattr(message, name)) for name in names}
    return workers_pb2.WorkerEvent(type="rows", level="info", message=f"{message.dataset} rows", data=data)


def row_errors(message: RowErrors) -> list[workers_pb2.WorkerEvent]:
    """Every refused row by its number and a reason of the closed list, then how many there are."""
    found = [
        workers_pb2.WorkerEvent(
            type="rows", level="error", message=f"{message.dataset} row {number}: {reason}", data={"row": number}
        )
        for number, reason in message.errors
    ]
    total = {"total_errors": float(message.total_errors)}
    text = f"{message.dataset}: {message.total_errors} rows refused"
    return [*found, workers_pb2.WorkerEvent(type="rows", level="error", message=text, data=total)]


def progress(message: Progress) -> list[workers_pb2.WorkerEvent]:
    """How far training is, with the loss of every step since the last report, at most `MAX_LOSSES` an event."""
    first = message.step - len(message.losses) + 1
    steps: list[tuple[int, float | None]] = list(enumerate(message.losses, first)) or [(message.step, None)]
    return [_progress(message, steps[at : at + MAX_LOSSES]) for at in range(0, len(steps), MAX_LOSSES)]


def _progress(message: Progress, steps: Sequence[tuple[int, float | None]]) -> workers_pb2.WorkerEvent:
    """As far as the last of these steps."""
    current, metrics = steps[-1][0], figures(message.metrics)
    done = jobs_pb2.Progress(
        label="train",
        current=current,
        total=message.max_steps,
        percent=100.0 * current / message.max_steps if message.max_steps else 0.0,
        eta_seconds=message.eta_seconds,
        epoch=message.epoch,
        metrics={**metrics, "trained_tokens": float(message.trained_tokens)},
    )
    losses = {f"{LOSS}{step}": loss for step, loss in steps if loss is not None}
    data = {"step": float(current), "max_steps": float(message.max_steps), **metrics, **losses}
    return workers_pb2.WorkerEvent(type="progress", level="info", message="training", data=data, progress=done)


def odd_rows(message: OddRows) -> workers_pb2.WorkerEvent:
    """Rows, by number, that made a step's loss stand out."""
    rows = ", ".join(str(number) for number in message.rows)
    text = f"loss of step {message.step} stands out; {message.dataset} rows {rows}"[:200]
    return note("warn", text, {"step": float(message.step)})


def merged(older: workers_pb2.WorkerEvent, newer: workers_pb2.WorkerEvent) -> workers_pb2.WorkerEvent | None:
    """Two progress events as one: the newer, with the losses of both; None where these are too many for one."""
    losses = {name: value for event in (older, newer) for name, value in event.data.items() if name.startswith(LOSS)}
    if len(losses) > MAX_LOSSES:
        return None
    result = workers_pb2.WorkerEvent()
    result.CopyFrom(newer)
    result.data.update(losses)
    return result


def evaluation(message: Evaluation) -> workers_pb2.WorkerEvent:
    """Figures on held-out rows."""
    data = {"step": float(message.step), **figures(message.metrics)}
    text = f"evaluation {message.phase}"
    if message.phase is EvaluationPhase.LAYERS:
        text = f"evaluation with {message.layers} layers"
    return workers_pb2.WorkerEvent(type="evaluation", level="info", message=text, data=data)


def verdict(message: Judged) -> workers_pb2.WorkerEvent:
    """The gate's word on one run of a de-biasing job."""
    whose = "the version" if message.run == 0 else f"run {message.run}"
    return note("info", f"the gate says {message.verdict} of {whose}")


def report(size: int) -> workers_pb2.WorkerEvent:
    """A job's report is sealed and stored."""
    return note("info", "report stored", {"bytes": float(size)})


def checkpoint(number: int, size: int) -> workers_pb2.WorkerEvent:
    """A checkpoint is sealed and stored."""
    data = {"step": float(number), "bytes": float(size)}
    return workers_pb2.WorkerEvent(type="checkpoint", level="info", message="checkpoint stored", data=data)
