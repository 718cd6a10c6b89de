# SPDX-License-Identifier: Apache-2.0
"""Asking a model a question: one sealed row, one short inference job, one sealed answer.

Nothing new is trusted for it.  The question is sealed to the pool as every dataset is, a worker answers it in a
sandbox, and only the member who asked and the team's recovery key can open the answer; both are entries in the log.
The question's dataset is destroyed as soon as it is answered.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cloister.api.v1 import jobs_pb2
from cloister.errors import JobFailedError, UsageError

if TYPE_CHECKING:
    from cloister.client import Client

ANSWERS = "predictions.jsonl"
TASKS = ("generate", "classify", "embed", "tag", "answer")


@dataclass(frozen=True)
class Question:
    """What is asked, and of which model."""

    model: str
    purpose: str
    task: str = "generate"
    auxiliary: str = ""
    """Encoder of a version with an index."""
    settings: Mapping[str, object] | None = None
    """Of method.inference."""


def purpose_of(client: Client, model: str) -> str:
    """What a model may be asked for: its layers bind that; of a base model nothing does.  Raises UsageError."""
    layers = client.models.start(model).layers
    allowed = set.intersection(*(set(layer.manifest.purposes) for layer in layers)) if layers else {"trying"}
    if len(allowed) != 1:
        raise UsageError(f"model {model} may be used for {', '.join(sorted(allowed)) or 'nothing'}: name a purpose")
    return allowed.pop()


def ask(client: Client, question: Question, row: Mapping[str, object]) -> Mapping[str, object]:
    """The answer to one row: a line of predictions.jsonl.  Waits for a worker.

    Raises JobFailedError where the job does not succeed; the question's dataset is deleted in any case.
    """
    # On this disk the question stands no longer than it takes to seal it.
    with tempfile.TemporaryDirectory(dir=client.cache, prefix="try-") as folder:
        path = Path(folder) / "question.jsonl"
        path.write_text(json.dumps(row) + "\n", "utf-8")
        dataset = client.datasets.push(path, f"try-{Path(folder).name[4:]}", [question.purpose], expires_days=1)
    try:
        return _answered(client, question, dataset.id)
    finally:
        client.datasets.delete(dataset.id)


def _answered(client: Client, question: Question, dataset: str) -> Mapping[str, object]:
    settings: dict[str, object] = {"task": question.task, **(question.settings or {})}
    spec: dict[str, object] = {
        "model": question.model,
        "evaluation_dataset": dataset,
        "purpose": question.purpose,
        "max_attempts": 1,
        "method": {"inference": settings},
    }
    if question.auxiliary:
        spec["auxiliary_model"] = question.auxiliary
    job = client.jobs.submit(spec)
    final = client.jobs.wait(job.id)
    if final.state != jobs_pb2.JOB_STATE_SUCCEEDED:
        why = f"{final.error.code}: {final.error.message}"
        raise JobFailedError(f"job {job.id}: {why}; see: cloister job show {job.id}")
    place = Path(tempfile.mkdtemp(dir=client.cache, prefix="answer-"))
    try:
        client.jobs.open_report(client.jobs.report(job.id), place / "report")
        lines = (place / "report" / ANSWERS).read_text("utf-8").splitlines()
        answer: Mapping[str, object] = json.loads(lines[0])
        return answer
    finally:
        shutil.rmtree(place)


def row_of(
    task: str, text: str, before: Sequence[Mapping[str, str]] = (), *, context: str = ""
) -> Mapping[str, object]:
    """The row of a text: a prompt, or with the turns before it a chat; for `answer` a question about the context.

    Raises UsageError for a context where the task takes none, and for none where it wants one.
    """
    if context and task != "answer":
        raise UsageError(f"task {task} takes no context; ask by task answer, or leave the context out")
    if task == "answer":
        if not context.strip():
            raise UsageError("task answer is asked about a context with some text in it; give one")
        return {"context": context, "question": text}
    if task != "generate":
        return {"text": text}
    return {"messages": [*before, {"role": "user", "content": text}]} if before else {"prompt": text}
