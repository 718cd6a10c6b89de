# SPDX-License-Identifier: Apache-2.0
"""A site on machines of its own, and what its people do on it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from machines import Machine
from waiting import eventually

UNAVAILABLE = 3
"""Exit code of the client when the control plane does not answer."""


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
        """Of a job; empty while the control plane does not answer."""
        shown = self.show(job_id)
        return str(shown["state"]).removeprefix("JOB_STATE_") if shown else ""

    def show(self, job_id: str) -> dict[str, Any]:
        """A job as alice sees it; empty while the control plane does not answer."""
        said = self.machines["laptop"].run("cloister", "job", "show", job_id, "--json", "--home", "/root/alice")
        assert said.status in (0, UNAVAILABLE), said.err
        return dict(json.loads(said.out)) if said.status == 0 else {}

    def await_training(self, job_id: str) -> None:
        """Until it has trained some steps."""
        eventually(lambda: self.trained_steps(job_id) or None, f"a step of {job_id}", 300, 1.0)

    def trained_steps(self, job_id: str) -> int:
        return int(self.show(job_id).get("progress", {}).get("current", 0))

    def finish(self, job_id: str) -> str:
        """The final state of a job."""
        over = ("SUCCEEDED", "FAILED", "CANCELLED")
        return eventually(lambda: s if (s := self.state(job_id)) in over else None, f"the end of {job_id}", 600, 2.0)
