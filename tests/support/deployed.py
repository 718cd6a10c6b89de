# SPDX-License-Identifier: Apache-2.0
"""A site on machines of its own, and what its people do on it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from machines import Machine
from waiting import eventually

UNUSABLE = 2
"""Exit code of the client where it cannot use what its own home holds."""
UNAVAILABLE = 3
"""Exit code of the client when the control plane does not answer."""
REFUSED = 5
"""The same, when it does not take the caller for anybody."""


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

    @contextmanager
    def full_disk(self) -> Iterator[None]:
        """Not a free block on the disk of the control plane, database and store alike."""
        machine = self.machines["site"]
        try:
            machine.run("bash", "-c", "fallocate -l $(df --output=avail -B1 /var | tail -1) /var/filler")
            machine.run("bash", "-c", "cat /dev/zero > /var/rest")
            assert machine.ok("df", "--output=avail", "/var").split()[1] == "0"
            yield
        finally:
            machine.ok("rm", "-f", "/var/filler", "/var/rest")

    def certify_alice(self, days_ago: int = 0) -> None:
        """A certificate of ninety days for alice's key, issued so long ago, put into her home."""
        self._certify("person", "alice", "/root/alice-request.json", days_ago)
        self.machines["laptop"].put(self.machines["vault"].folder / "root/again.json", "/root/again.json")
        self.machines["laptop"].run("cloister", "enroll", "/root/again.json", "--home", "/root/alice")

    def certify_host(self, days_ago: int = 0) -> None:
        """The same for the worker host."""
        self._certify("host", "gpu1", "/root/gpu1-request.json", days_ago)
        self.machines["gpu1"].put(self.machines["vault"].folder / "root/again.json", "/root/again.json")
        self.machines["gpu1"].ok("cloister-worker", "install", "/var/lib/cloister-worker", "/root/again.json")

    def _certify(self, kind: str, name: str, request: str, days_ago: int) -> None:
        command = f"cloister-admin {kind} certify {request} --id {name} --dir /root/ceremony -o /root/again.json"
        self.machines["vault"].shell(f"rm -f /root/again.json; faketime -f -{days_ago}d {command}")

    def enrol(self, name: str) -> None:
        """A new member of the team, by a one-time token."""
        vault, laptop = self.machines["vault"], self.machines["laptop"]
        token = self._dana(f"token create --person {name} --team icu --roles member --expires 1h").split()[-1]
        join = ("cloister", "enroll", "--server", "site:8443", "--token", "-", "--home", f"/root/{name}")
        laptop.ok(*join, stdin=f"{token}\n")
        self._dana("token fetch -o /root/claims.json")
        vault.put(laptop.folder / "root/claims.json", "/root/claims.json")
        custody = "--dir /root/ceremony"
        vault.shell(f"cloister-admin token admit /root/claims.json {custody} --yes -o /root/welcomes.json")
        vault.shell(f"cloister-admin roster sign {custody}")
        laptop.put(vault.folder / "root/welcomes.json", "/root/welcomes.json")
        laptop.put(vault.folder / "root/ceremony/roster.dsse", "/root/roster.dsse")
        self._dana("roster publish /root/roster.dsse")
        self._dana("token publish /root/welcomes.json")
        laptop.ok(*join, stdin=f"{token}\n")

    def _dana(self, line: str) -> str:
        return self.machines["laptop"].shell(f"export CLOISTER_HOME=/root/dana\ncloister-admin {line}")
