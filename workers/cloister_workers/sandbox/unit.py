# SPDX-License-Identifier: Apache-2.0
"""Start a program in a sandbox that systemd makes: an instance of a unit for each connection to its socket.

The agent then needs no right to make namespaces, and the instance runs as a user that exists for this job alone.
Over the connection go one byte and the descriptors of a plan, a report and what the program gets (`instance` is
the other end); back come the program's exit code.  The agent's end of the connection is the program's lifeline.

A model's folder is passed as a descriptor, because no mount of the instance can name it.  Threat: from a folder's
descriptor ".." leads on.  It leads into the model cache, which only the agent's user may enter: that is checked.
"""

from __future__ import annotations

import array
import os
import select
import signal
import socket
import stat
import struct
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from cloister_workers.sandbox.errors import SandboxStartError
from cloister_workers.sandbox.launch import await_start, check_argv, private_copies
from cloister_workers.sandbox.layout import SCRATCH, environment, limits, own_limits
from cloister_workers.sandbox.plan import Plan
from cloister_workers.sandbox.spec import SandboxSpec

EXIT_CODE = struct.Struct(">i")
"""What the instance sends last: the program's exit code, minus the signal that ended it."""


class UnitProcess:
    """A program in an instance of the unit; ends with this process, or by `kill`."""

    sandboxed = True
    scratch_path = SCRATCH

    def __init__(self, connection: socket.socket, model_path: str | None, auxiliary_path: str | None) -> None:
        self.model_path = model_path
        self.auxiliary_path = auxiliary_path
        self._connection = connection
        self._code: int | None = None
        self._waiting = threading.Lock()

    @property
    def returncode(self) -> int | None:
        """The program's exit code, minus the number of the signal that ended it, or None while it runs."""
        try:
            return self.wait(0)
        except TimeoutError:
            return None

    def wait(self, timeout: float | None = None) -> int:
        """Wait until nothing of the program is left and return `returncode`; raises TimeoutError."""
        late = TimeoutError(f"the sandboxed program still runs after {timeout} s")
        if not self._waiting.acquire(timeout=-1 if timeout is None else timeout):
            raise late
        try:
            if self._code is None:
                if not select.select([self._connection], [], [], timeout)[0]:
                    raise late
                said = _said(self._connection)
                # Silence: the instance itself was ended, for want of memory or time, or by an administrator.
                self._code = EXIT_CODE.unpack(said)[0] if len(said) == EXIT_CODE.size else -signal.SIGKILL
                self._connection.close()
            return self._code
        finally:
            self._waiting.release()

    def kill(self) -> None:
        """Have everything inside killed; returns at once, and `wait` returns when it is done."""
        try:
            self._connection.shutdown(socket.SHUT_WR)
        except OSError:  # the instance is gone already
            return

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        self.wait()


def launch_in_unit(address: Path, argv: Sequence[str], spec: SandboxSpec) -> UnitProcess:
    """Start `argv` in a new instance behind the socket at `address`; returns once it runs.

    The unit decides about scratch, devices and what else is visible; of `spec` count the models, the descriptors,
    the environment and the limits.  Raises SandboxSpecError, SandboxStartError.
    """
    check_argv(argv)
    with ExitStack() as stack:
        fds = dict(stack.enter_context(private_copies(spec.pass_fds)))
        model_path = _add_model(stack, fds, spec.model_dir)
        auxiliary_path = _add_model(stack, fds, spec.auxiliary_dir)
        plan = Plan(
            argv=list(argv),
            env=environment(SCRATCH, spec.env),
            cwd=SCRATCH,
            fds={target: place for place, target in enumerate(fds)},  # the instance puts its own numbers in
            limits=limits(spec),
            own_limits=own_limits(spec),
        )
        connection = _start_instance(address, plan, list(fds.values()))
    return UnitProcess(connection, model_path, auxiliary_path)


def _add_model(stack: ExitStack, fds: dict[int, int], folder: Path | None) -> str | None:
    """Add a model's folder to what is passed; returns its path inside."""
    if folder is None:
        return None
    if stat.S_IMODE(folder.parent.stat().st_mode) & 0o077:
        raise SandboxStartError("model", 0, f"{folder.parent} is open to other users: chmod 0700 {folder.parent}")
    target = max((2, *fds)) + 1
    fds[target] = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    stack.callback(os.close, fds[target])
    return f"/proc/self/fd/{target}"


def _start_instance(address: Path, plan: Plan, fds: Sequence[int]) -> socket.socket:
    report_read, report_write = os.pipe()
    plan_fd = os.memfd_create("plan")
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        try:
            os.write(plan_fd, plan.encode())
            os.lseek(plan_fd, 0, os.SEEK_SET)
            connection.connect(str(address))
            rights = array.array("i", [plan_fd, report_write, *fds])
            connection.sendmsg([b"\0"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        except (BrokenPipeError, ConnectionResetError):
            raise _not_taken(address) from None
        except OSError as error:
            raise SandboxStartError("socket", error.errno or 0, f"{address}: {error.strerror}") from None
        finally:
            os.close(plan_fd)
            os.close(report_write)
        await_start(report_read)
        _check_taken(connection, address)
    except BaseException:
        connection.close()
        raise
    finally:
        os.close(report_read)
    return connection


def _said(connection: socket.socket, flags: int = 0) -> bytes:
    """The exit code, which is sent at once and so never comes in pieces; nothing where the other end is closed."""
    try:
        return connection.recv(EXIT_CODE.size, flags)
    except ConnectionResetError:
        return b""


def _check_taken(connection: socket.socket, address: Path) -> None:
    """Descriptors that nobody took are closed, which looks like a start: the connection tells them apart."""
    if select.select([connection], [], [], 0)[0] and not _said(connection, socket.MSG_PEEK):
        raise _not_taken(address)


def _not_taken(address: Path) -> SandboxStartError:
    return SandboxStartError("unit", 0, f"{address} took no more: all instances are in use, or the unit fails")
