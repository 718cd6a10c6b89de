# SPDX-License-Identifier: Apache-2.0
"""A trainer that follows a script, on a thread, in place of a sandboxed process."""

from __future__ import annotations

import os
import select
import socket
import threading
from collections.abc import Callable

from builders import frozen_memory
from cloister_workers.errors import PeerClosed
from cloister_workers.protocol import CONTROL_FD, Channel, DatasetRole, Ready, Side, Start
from cloister_workers.sandbox.spec import SandboxSpec


class TrainerSide:
    """What a script of a trainer works with."""

    def __init__(self, channel: Channel, spec: SandboxSpec) -> None:
        self.channel = channel
        self.sandbox = spec
        self.inputs: dict[DatasetRole, bytes] = {}
        self.start: Start | None = None

    def begin(self) -> None:
        """Say ready, take the job, read every input to its end."""
        self.channel.send(Ready())
        received = self.channel.receive()
        assert isinstance(received.message, Start)
        self.start = received.message
        for role, index in received.message.inputs.items():
            self.inputs[role] = self._read(received.fds[index])

    def _read(self, fd: int) -> bytes:
        """Everything from a pipe; like a killed process, it is gone when the control socket was shut down."""
        found = bytearray()
        try:
            while True:
                control = self.channel.fileno()
                ready, _, _ = select.select([fd, control], [], [])
                if control in ready and not self.channel._socket.recv(1, socket.MSG_PEEK):
                    raise PeerClosed("killed")
                if fd in ready:
                    data = os.read(fd, 1 << 20)
                    if not data:
                        return bytes(found)
                    found += data
        finally:
            os.close(fd)

    def send_bundle(self, message: object, content: bytes) -> None:
        fd = frozen_memory(content)
        self.channel.send(message, [fd])  # type: ignore[arg-type]  # a message of the protocol
        os.close(fd)


Script = Callable[[TrainerSide], int | None]
"""Returns the exit code, 0 for None."""


class FakeProcess:
    """A trainer on a thread, that `kill` ends by closing its socket."""

    model_path = "/model"
    scratch_path = "/scratch"

    def __init__(self, script: Script, spec: SandboxSpec) -> None:
        # On a copy: the agent closes its own descriptor after the start, as it does with a real process.
        self._socket = socket.socket(fileno=os.dup(spec.pass_fds[CONTROL_FD]))
        self.auxiliary_path = None if spec.auxiliary_dir is None else "/auxiliary"
        self._code: int | None = None
        self._script = script
        self.side = TrainerSide(Channel(self._socket, Side.TRAINER), spec)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        code: int | None = -9
        try:
            code = self._script(self.side)
        except (PeerClosed, OSError):
            code = -9
        finally:
            self._code = 0 if code is None else code
            self.side.channel.close()

    @property
    def returncode(self) -> int | None:
        return self._code

    def kill(self) -> None:
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            return

    def wait(self, timeout: float | None = None) -> int:
        self._thread.join(timeout)
        if self._thread.is_alive():
            raise TimeoutError
        assert self._code is not None
        return self._code
