# SPDX-License-Identifier: Apache-2.0
"""What the control plane is told of a job: fixed words and figures, made from the trainer's closed messages."""

from __future__ import annotations

from collections.abc import Mapping

from cloister.api.v1 import jobs_pb2, workers_pb2
from cloister_workers.messages import (
    Evaluation,
    EvaluationPhase,
    Judged,
    Metrics,
    OddRows,
    Progress,
    RowErrors,
    Rows,
    Stage,
    StageChange,
    StageStatus,
)

MAX_LOSSES = 1000
"""Losses of single steps in one event; beyond it the newest are kept."""
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


def progress(message: Progress) -> workers_pb2.WorkerEvent:
    """How far training is, with the loss of every step since the last report."""
    metrics = figures(message.metrics)
    done = jobs_pb2.Progress(
        label="train",
        current=message.step,
        total=message.max_steps,
        percent=100.0 * message.step / message.max_steps if message.max_steps else 0.0,
        eta_seconds=message.eta_seconds,
        epoch=message.epoch,
        metrics={**metrics, "trained_tokens": float(message.trained_tokens)},
    )
    first = message.step - len(message.losses) + 1
    losses = {f"{LOSS}{first + number}": loss for number, loss in enumerate(message.losses)}
    data = {"step": float(message.step), "max_steps": float(message.max_steps), **metrics, **losses}
    return workers_pb2.WorkerEvent(type="progress", level="info", message="training", data=data, progress=done)


def odd_rows(message: OddRows) -> workers_pb2.WorkerEvent:
    """Rows, by number, that made a step's loss stand out."""
    rows = ", ".join(str(number) for number in message.rows)
    text = f"loss of step {message.step} stands out; {message.dataset} rows {rows}"[:200]
    return note("warn", text, {"step": float(message.step)})


def merged(older: workers_pb2.WorkerEvent, newer: workers_pb2.WorkerEvent) -> workers_pb2.WorkerEvent:
    """Two progress events as one: the newer, with the losses of both."""
    both = {name: value for name, value in older.data.items() if name.startswith(LOSS)}
    both |= {name: value for name, value in newer.data.items() if name.startswith(LOSS)}
    keep = sorted(both, key=lambda name: int(name.removeprefix(LOSS)))[-MAX_LOSSES:]
    result = workers_pb2.WorkerEvent()
    result.CopyFrom(newer)
    for name in keep:
        result.data[name] = both[name]
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
