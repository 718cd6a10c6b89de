# SPDX-License-Identifier: Apache-2.0
"""Starting and stopping the site's processes.

Each runs in a process group of its own, so that ctrl-C reaches only this program, which then stops them in the
order in which they depend on each other.  What they say goes to log/NAME.log.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from cloister_dev.errors import DevError

STOP_SECONDS = 20


@dataclass(frozen=True)
class Program:
    """One process: a name, a module to run and its arguments."""

    name: str
    module: str
    arguments: tuple[str, ...]
    ready: Callable[[], bool]
    """Whether it answers; asked until it says yes."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """On top of what all get."""


class RunningProgram:
    """A started program; leaving the context stops it."""

    def __init__(self, program: Program, log_directory: Path, environment: dict[str, str]) -> None:
        self.program = program
        self.log = log_directory / f"{program.name}.log"
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", program.module, *program.arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**environment, **program.environment},
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def wait_ready(self, seconds: float = 60.0) -> None:
        """Raises DevError when it ends first, or does not answer in time."""
        while not self.program.ready():
            try:
                status = self.process.wait(timeout=0.1)
            except subprocess.TimeoutExpired:
                seconds -= 0.1
                if seconds > 0:
                    continue
                raise DevError(f"{self.program.name} does not answer; read {self.log}") from None
            raise DevError(f"{self.program.name} ended with status {status}; read {self.log}")

    def stop(self) -> None:
        """Ask it to end, and end it when it does not."""
        if self.process.poll() is not None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(timeout=STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def start_all(stack: ExitStack, programs: Sequence[Program], log_directory: Path) -> list[RunningProgram]:
    """Start programs in order, each once the one before answers; the stack stops them in reverse."""
    log_directory.mkdir(mode=0o700, exist_ok=True)
    environment = {**os.environ, "PYTHONSAFEPATH": "1"}
    running = []
    for program in programs:
        started = stack.enter_context(RunningProgram(program, log_directory, environment))
        started.wait_ready()
        running.append(started)
    return running
