# SPDX-License-Identifier: Apache-2.0
"""A site on machines of its own, and what its people do on it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from machines import Machine
from waiting import eventually


@dataclass(frozen=True)
class Site:
    """The machines after the guide, and what each line printed."""

    machines: Mapping[str, Machine]
    said: Mapping[str, list[tuple[str, str]]]

    def alice(self, line: str) -> str:
        return self.machines["laptop"].shell(f"export CLOISTER_HOME=/root/alice\n{line}")

    def submit(self, name: str, epochs: int) -> str:
        """Queue a job of alice's; its id."""
        settings = f"--set n_epochs={epochs} --set n_checkpoints=8"
        line = f"cloister tune --base minilm --data tickets --method classify --name {name} {settings} --json"
        return str(json.loads(self.alice(line))["id"])

    def state(self, job_id: str) -> str:
        shown = json.loads(self.alice(f"cloister job show {job_id} --json"))
        return str(shown["state"]).removeprefix("JOB_STATE_")

    def await_training(self, job_id: str) -> None:
        """Until it has trained some steps."""
        eventually(lambda: self.trained_steps(job_id) or None, f"a step of {job_id}", 300, 1.0)

    def trained_steps(self, job_id: str) -> int:
        shown = json.loads(self.alice(f"cloister job show {job_id} --json"))
        return int(shown.get("progress", {}).get("current", 0))

    def finish(self, job_id: str) -> str:
        """The final state of a job."""
        over = ("SUCCEEDED", "FAILED", "CANCELLED")
        return eventually(lambda: s if (s := self.state(job_id)) in over else None, f"the end of {job_id}", 600, 2.0)
