# SPDX-License-Identifier: Apache-2.0
"""A whole embedded site of real processes, and its people's command lines."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from cloister_dev.found import found_site
from cloister_dev.layout import Layout
from cloister_dev.processes import Program, RunningProgram
from cloister_dev.site import programs, publish_policy

BIN = Path(sys.executable).parent
COMMAND_SECONDS = 180


@dataclass(frozen=True)
class Said:
    """What a command printed, and how it ended."""

    status: int
    out: str
    err: str

    def json(self) -> dict[str, object]:
        values = json.loads(self.out)
        assert isinstance(values, dict)
        return values


class LiveSite:
    """Starts, kills and restarts the processes of one site."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        self.layout = Layout(directory)
        self._stack = stack
        self._running: dict[str, RunningProgram] = {}
        self._programs = {program.name: program for program in programs(self.layout)}

    def set_lease(self, seconds: int, sweep_seconds: int = 5) -> None:
        """Before the server starts: how long a lease lasts; a worker hears of directives four times in it."""
        text = self.layout.server_config.read_text()
        assert "lease_seconds = 60" in text
        changed = text.replace("lease_seconds = 60", f"lease_seconds = {seconds}\nsweep_seconds = {sweep_seconds}")
        self.layout.server_config.write_text(changed)

    def add(self, program: Program) -> None:
        """Let `start` know one more program."""
        self._programs[program.name] = program

    def start(self, name: str, crash_at: str = "", *, wait: bool = True) -> RunningProgram:
        """Start one program; `crash_at` names the point at which it kills itself."""
        program = self._programs[name]
        environment = {**os.environ, "PYTHONSAFEPATH": "1"}
        if crash_at:
            environment["CLOISTER_TESTING_CRASH_AT"] = crash_at
        running = self._stack.enter_context(RunningProgram(program, self.layout.log, environment))
        self._running[name] = running
        if wait:
            running.wait_ready()
        return running

    def start_all(self) -> None:
        for name in ("server", "keyagent", "agent"):
            self.start(name)

    def kill(self, name: str) -> None:
        """SIGKILL, at once."""
        process = self._running[name].process
        process.kill()
        process.wait()

    def stop(self, name: str) -> None:
        self._running[name].stop()

    def revive(self) -> None:
        """Start again what has ended."""
        for name, running in list(self._running.items()):
            if running.process.poll() is not None:
                self.start(name)

    def running(self, name: str) -> RunningProgram:
        return self._running[name]

    def said(self, person: str, *arguments: str, env: dict[str, str] | None = None) -> Said:
        """Run a command line as a person; the first word names the program in the environment's bin."""
        environment = {**os.environ, "CLOISTER_HOME": str(self.layout.home(person)), "COLUMNS": "200", **(env or {})}
        done = subprocess.run(
            [str(BIN / arguments[0]), *arguments[1:]],
            env=environment,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )
        return Said(done.returncode, done.stdout, done.stderr)

    def ok(self, person: str, *arguments: str) -> Said:
        """The same; the command must succeed."""
        said = self.said(person, *arguments)
        assert 0 == said.status, f"{' '.join(arguments)}: {said.status}\n{said.out}\n{said.err}\n{self.logs()}"
        return said

    def read(self, person: str, *arguments: str) -> dict[str, object]:
        return self.ok(person, *arguments, "--json").json()

    def logs(self) -> str:
        return "\n".join(
            f"--- {path.name}\n{path.read_text(errors='replace')[-4000:]}"
            for path in sorted(self.layout.log.glob("*.log"))
        )


@contextmanager
def live_site(directory: Path, *, start: bool = True) -> Iterator[LiveSite]:
    """A founded site; its processes stop at the end, whatever happened."""
    with ExitStack() as stack:
        site = LiveSite(directory, stack)
        found_site(site.layout)
        site.layout.log.mkdir(mode=0o700, exist_ok=True)
        # The tests' processes share the cores: a trainer that took all of them would wait for every other one.
        (site.layout.worker / "agent" / "agent.toml").write_text("threads = 1\n")
        if start:
            site.start_all()
            publish_policy(site.layout)
        yield site
