# SPDX-License-Identifier: Apache-2.0
"""The mix of a soak: every kind of job and of end, one after the other, as a member's program would ask for them."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from cloister import Client
from cloister.api.v1 import jobs_pb2

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "support"))
from tiny_models import classification_rows, write_bert

PURPOSE = "triage"
MODEL, ROWS, BAD_ROWS = "tiny", "rows", "bad"
FEW_EPOCHS, MANY_EPOCHS = 2, 2000
"""Done within a second, and more than anybody waits for."""


def prepare(client: Client, folder: Path) -> None:
    """A tiny model, good rows, and rows that a trainer refuses."""
    client.models.import_dir(write_bert(folder / "model"), MODEL, "none", "made for the soak")
    (folder / "rows.jsonl").write_bytes(classification_rows(90))
    client.datasets.push(folder / "rows.jsonl", ROWS, [PURPOSE])
    (folder / "bad.jsonl").write_text("".join(json.dumps({"note": number}) + "\n" for number in range(60)))
    client.datasets.push(folder / "bad.jsonl", BAD_ROWS, [PURPOSE])


def training(epochs: int, rows: str = ROWS) -> dict[str, object]:
    """A classification job of a second, or of as long as it is let."""
    settings = {"n_epochs": epochs, "batch_size": 8, "micro_batch_size": 8, "learning_rate": 0.02, "n_checkpoints": 2}
    return {
        "model": MODEL,
        "training_dataset": rows,
        "purpose": PURPOSE,
        "max_attempts": 3,
        "data": {"evaluation_fraction": 0.2},
        "method": {"classification": {"hyperparameters": settings}},
        "adapter": {"lora": {"rank": 2, "target_modules": ["query", "value"]}},
    }


def asking(model: str, method: dict[str, object]) -> dict[str, object]:
    """An evaluation or inference job of a version."""
    return {"model": model, "evaluation_dataset": ROWS, "purpose": PURPOSE, "method": method}


@dataclass
class Mix:
    """Runs jobs of every kind in turn; `unexpected` names those that ended otherwise than they should."""

    client: Client
    folder: Path
    ended: Counter[str] = field(default_factory=Counter)
    unexpected: list[str] = field(default_factory=list)
    version: str = ""

    @property
    def kinds(self) -> tuple[tuple[str, Callable[[], str], str], ...]:
        """Name, what runs it and gives its state, and the state that it must end in."""
        return (
            ("train", self.train, "SUCCEEDED"),
            ("evaluate", lambda: self._report({"evaluation": {"task": "classification"}}), "SUCCEEDED"),
            ("infer", lambda: self._report({"inference": {"task": "classify"}}), "SUCCEEDED"),
            ("cancel", self.cancel, "CANCELLED"),
            ("pause", self.pause, "CANCELLED"),
            ("fail", lambda: self._ended(self._submit(training(FEW_EPOCHS, BAD_ROWS))), "FAILED"),
            ("wait", self.cancel_waiting, "CANCELLED"),
        )

    def once(self) -> None:
        """One job of each kind."""
        for name, run, wanted in self.kinds:
            state = run()
            self.ended[name] += 1
            if state != wanted:
                self.unexpected.append(f"{name} ended as {state}")
        self._read()

    def train(self) -> str:
        """Train, release and pull; the first version is the one that is asked afterwards."""
        job_id = self._submit(training(FEW_EPOCHS))
        state = self._ended(job_id)
        if state == "SUCCEEDED":
            release = self.client.models.release(job_id, reason="soak")
            self.client.models.wait_release(release.id)
            self.client.models.pull(job_id, self.folder / job_id)
            self.version = self.version or job_id
        return state

    def cancel(self) -> str:
        job_id = self._training_now()
        self.client.jobs.cancel(job_id)
        return self._ended(job_id)

    def pause(self) -> str:
        """Pause, go on, and cancel, so that it does not train to its end."""
        job_id = self._training_now()
        self.client.jobs.pause(job_id)
        while (job := self.client.jobs.get(job_id)).state != jobs_pb2.JOB_STATE_PAUSED:
            if job.HasField("finished_at"):
                return self._state(job)
            time.sleep(0.2)
        self.client.jobs.resume(job_id)
        self._until_it_trains(job_id, attempt=2)
        self.client.jobs.cancel(job_id)
        return self._ended(job_id)

    def cancel_waiting(self) -> str:
        """Two at once: the second waits behind the first, and is cancelled while it does."""
        first = self._training_now()
        second = self._submit(training(FEW_EPOCHS))
        self.client.jobs.cancel(second)
        state = self._ended(second)
        self.client.jobs.cancel(first)
        self._ended(first)
        return state

    def _report(self, method: dict[str, object]) -> str:
        return self._ended(self._submit(asking(self.version, method)))

    def _read(self) -> None:
        """What people look at in between."""
        client = self.client
        for listing in (client.jobs.list, client.models.list, client.datasets.list, client.models.releases):
            list(listing(20))
        client.jobs.curves(self.version)

    def _submit(self, spec: dict[str, object]) -> str:
        return self.client.jobs.submit(spec).id

    def _training_now(self) -> str:
        job_id = self._submit(training(MANY_EPOCHS))
        self._until_it_trains(job_id, attempt=1)
        return job_id

    def _until_it_trains(self, job_id: str, attempt: int) -> None:
        for message in self.client.jobs.watch(job_id):
            if message.event.type == "progress" and message.event.attempt == attempt:
                return

    def _ended(self, job_id: str) -> str:
        return self._state(self.client.jobs.wait(job_id))

    @staticmethod
    def _state(job: jobs_pb2.Job) -> str:
        return jobs_pb2.JobState.Name(job.state).removeprefix("JOB_STATE_")
