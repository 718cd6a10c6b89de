# SPDX-License-Identifier: Apache-2.0
"""Stands for systemd: an instance of the trainer's program for each connection to a socket, inside our own sandbox."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cloister_workers.sandbox.instance import LISTEN_FD
from cloister_workers.sandbox.launch import SandboxedProcess, launch
from cloister_workers.sandbox.spec import SandboxSpec

INSTANCE = [sys.executable, "-I", "-m", "cloister_workers", "trainer"]


@dataclass
class TrainerUnit:
    """The socket, and the instances that were started."""

    address: Path
    instances: list[SandboxedProcess] = field(default_factory=list)
    refuse: bool = False
    """Close connections at once, as systemd does beyond MaxConnections=."""


@contextmanager
def trainer_unit(directory: Path) -> Iterator[TrainerUnit]:
    """Listen until the end; instances that are left are killed."""
    unit = TrainerUnit(directory / "trainer.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(unit.address))
        listener.listen()
        thread = threading.Thread(target=_serve, args=(listener, unit))
        thread.start()
        try:
            yield unit
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            for instance in unit.instances:
                instance.kill()
                instance.wait()


def _serve(listener: socket.socket, unit: TrainerUnit) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return  # shut down
        with connection:
            if not unit.refuse:
                spec = SandboxSpec(pass_fds={LISTEN_FD: connection.fileno()}, scratch_bytes=1 << 24)
                unit.instances.append(launch(INSTANCE, spec))
