# SPDX-License-Identifier: Apache-2.0
"""Start a program in a sandbox and hold on to it."""

from __future__ import annotations

import fcntl
import os
import select
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import cloister_workers
from cloister_workers.sandbox.errors import SandboxSpecError, SandboxStartError
from cloister_workers.sandbox.layout import AUXILIARY, MODEL, SCRATCH, sandbox_plan
from cloister_workers.sandbox.plan import Plan
from cloister_workers.sandbox.spec import SandboxSpec

START_SECONDS = 60  # a loaded host may be slow; a launcher that hangs longer is broken

# -I: no variable or directory of the agent's decides what is loaded. -S: no site, which would cost more than the
# sandbox itself; the package's directory is therefore given, and last, so that it hides no module of the library.
_BOOTSTRAP = """\
import sys
sys.path.append(sys.argv[1])
from cloister_workers.sandbox import {module}
{module}.main(*map(int, sys.argv[2:]))
"""


class SandboxedProcess:
    """A running program, its launcher included; ends with this process, or by `kill`.

    `pid` is the launcher's, on the host: a pidfd of it becomes readable when all inside is gone. Its exit code, or the
    signal that it dies of, is the program's. `model_path`, `auxiliary_path` and `scratch_path` are where the program
    finds them.
    """

    def __init__(
        self,
        launcher: subprocess.Popen[bytes],
        lifeline: int,
        *,
        model_path: str | None,
        auxiliary_path: str | None = None,
        scratch_path: str,
        sandboxed: bool,
        on_end: Callable[[], None] = lambda: None,
    ) -> None:
        self.pid = launcher.pid
        self.model_path = model_path
        self.auxiliary_path = auxiliary_path
        self.scratch_path = scratch_path
        self.sandboxed = sandboxed
        self._launcher = launcher
        self._lifeline = [lifeline]  # emptied by whoever closes it, so that it is closed once
        self._on_end = on_end

    @property
    def returncode(self) -> int | None:
        """The program's exit code, minus the number of the signal that ended it, or None while it runs."""
        if self._launcher.poll() is not None:
            self._ended()
        return self._launcher.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait until nothing of the sandbox is left and return `returncode`; raises TimeoutError."""
        try:
            code = self._launcher.wait(timeout)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"the sandboxed program still runs after {timeout} s") from None
        self._ended()
        return code

    def kill(self) -> None:
        """Have everything inside killed; returns at once, and `wait` returns when it is done."""
        for fd in self._take_lifeline():
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        self.wait()

    def _ended(self) -> None:
        self.kill()
        self._on_end()

    def _take_lifeline(self) -> list[int]:
        try:
            return [self._lifeline.pop()]
        except IndexError:
            return []


def launch(argv: Sequence[str], spec: SandboxSpec) -> SandboxedProcess:
    """Start `argv` (argv[0] an absolute path that exists inside) in a fresh sandbox; returns once it runs.

    Blocks for some tens of milliseconds. The descriptors of `spec.pass_fds` stay open here; close them if their ends
    of file matter. May be called from any thread. Raises SandboxSpecError, SandboxStartError.
    """
    check_argv(argv)
    with private_copies(spec.pass_fds) as fds:
        launcher, lifeline = start_launcher("enter", sandbox_plan(argv, spec, fds))
    model = MODEL if spec.model_dir else None
    second = AUXILIARY if spec.auxiliary_dir else None
    return SandboxedProcess(
        launcher, lifeline, model_path=model, auxiliary_path=second, scratch_path=SCRATCH, sandboxed=True
    )


def check_argv(argv: Sequence[str]) -> None:
    """Raise SandboxSpecError if `argv` is not something to execute."""
    if not argv or not argv[0].startswith("/") or any("\0" in argument for argument in argv):
        raise SandboxSpecError("argv must start with an absolute path and hold no NUL character")


@contextmanager
def private_copies(pass_fds: Mapping[int, int]) -> Iterator[dict[int, int]]:
    """Copy the descriptors to numbers above the standard ones, and close the copies at the end."""
    with ExitStack() as stack:
        copies: dict[int, int] = {}
        for target, fd in pass_fds.items():
            try:
                if stat.S_ISDIR(os.fstat(fd).st_mode):
                    # From a directory's descriptor all below it, and by ".." above it, can be opened.
                    raise SandboxSpecError(f"descriptor {fd} is a directory, which would lead out of the sandbox")
                copies[target] = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
            except OSError as error:
                raise SandboxSpecError(f"descriptor {fd} cannot be passed: {error.strerror}") from error
            stack.callback(os.close, copies[target])
        yield copies


def start_launcher(module: str, plan: Plan) -> tuple[subprocess.Popen[bytes], int]:
    """Start the launcher `sandbox.<module>`; return it and the lifeline's end once the program runs."""
    root = str(Path(cloister_workers.__file__).parent.parent)
    # Not PR_SET_PDEATHSIG, which would fire when the *thread* that launches ends. Only this process holds the end.
    lifeline_read, lifeline = os.pipe()
    report_read, report_write = os.pipe()
    plan_fd = os.memfd_create("plan")
    with ExitStack() as stack:
        stack.callback(os.close, report_read)
        try:
            os.write(plan_fd, plan.encode())
            os.lseek(plan_fd, 0, os.SEEK_SET)
            ours = (plan_fd, report_write, lifeline_read)
            launcher = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _BOOTSTRAP.format(module=module), root, *map(str, ours)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(*ours, *plan.fds.values()),
                start_new_session=True,  # a ctrl-C at a terminal is the agent's to handle
                env=_loader_environment(),
            )
        except BaseException:
            os.close(lifeline)
            raise
        finally:
            for fd in (plan_fd, report_write, lifeline_read):
                os.close(fd)
        try:
            await_start(report_read)
        except BaseException:
            os.close(lifeline)
            launcher.kill()
            launcher.wait()
            raise
    return launcher, lifeline


def _loader_environment() -> dict[str, str]:
    """Return what an interpreter in an unusual place may need to start; nothing else of our environment is passed."""
    return {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}


def await_start(report: int) -> None:
    """Return at end of file: every process that could still fail before exec has closed its end."""
    text = b""
    poll = select.poll()
    poll.register(report, select.POLLIN)
    while poll.poll(START_SECONDS * 1000):
        chunk = os.read(report, 65536)
        if not chunk:
            break
        text += chunk
    else:
        raise SandboxStartError("timeout", 0, f"the launcher gave no answer within {START_SECONDS} s")
    if text:
        stage, number, words = text.decode("utf-8", "replace").split("\0", 2)
        raise SandboxStartError(stage, int(number), words)
