# SPDX-License-Identifier: Apache-2.0
"""The key agent as a process: hardened, one per directory, ended by SIGTERM or SIGINT."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import time
from pathlib import Path

from cloister.sd_notify import ServiceManager
from cloister_workers.keyagent.memory import Memory
from cloister_workers.keyagent.server import SOCKET, Access, KeyAgent, listen, lock, log_line, serve
from cloister_workers.keyagent.vault import load_vault

_PR_SET_DUMPABLE = 4


def harden() -> None:
    """Keep this process's memory out of core files and away from debuggers of its own user."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_DUMPABLE)")


def run(folder: Path, access: Access) -> None:
    """Serve until told to stop.  Raises KeyStoreError, MemoryDamagedError, OSError."""
    # Before a key is read: what was never dumpable cannot have been dumped.
    harden()
    held = lock(folder)
    stop, wake = os.pipe()
    os.set_blocking(wake, False)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    manager = ServiceManager(os.environ)
    credentials = os.environ.get("CREDENTIALS_DIRECTORY")
    vault, memory = load_vault(folder, Path(credentials) if credentials else None), Memory(folder)
    agent = KeyAgent(vault, memory, clock=lambda: int(time.time()), log=log_line)
    path = folder / SOCKET
    with listen(path, access) as listener:
        log_line({"event": "ready", "host": vault.host_id})
        manager.ready(f"host {vault.host_id}")
        serve(listener, agent, access, stop, log_line, manager)
        manager.stopping("the socket is closed")
    path.unlink(missing_ok=True)
    os.close(held)
    log_line({"event": "stopped"})
