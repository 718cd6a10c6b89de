# SPDX-License-Identifier: Apache-2.0
"""Find out at worker start whether this host can sandbox at all, by entering one and looking around."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cloister_workers.sandbox.errors import SandboxError
from cloister_workers.sandbox.launch import SandboxedProcess, launch
from cloister_workers.sandbox.spec import SandboxSpec
from cloister_workers.sandbox.unit import UnitProcess

_LOOK_AROUND = """
import json, os, socket
def denied(call, *arguments):
    try:
        call(*arguments)
    except OSError:
        return True
    return False
status = dict(line.split(":", 1) for line in open("/proc/self/status").read().splitlines())
print(json.dumps({
    "network": [line.split(":")[0].strip() for line in open("/proc/self/net/dev").readlines()[2:]],
    "internet_sockets_denied": denied(socket.socket, socket.AF_INET, socket.SOCK_STREAM),
    "root_read_only": denied(os.mkdir, "/probe"),
    "capabilities": [int(status[name], 16) for name in ("CapEff", "CapPrm", "CapBnd", "CapAmb", "CapInh")],
    "no_new_privs": int(status["NoNewPrivs"]),
    "seccomp": int(status["Seccomp"]),
    "first_process_is_ours": len([name for name in os.listdir("/proc") if name.isdigit()]) == 2,
    "descriptors": sorted(map(int, os.listdir("/proc/self/fd")))[:-1],
}))
"""
_EXPECTED = {
    "network": ["lo"],
    "internet_sockets_denied": True,
    "root_read_only": True,
    "capabilities": [0, 0, 0, 0, 0],
    "no_new_privs": 1,
    "seccomp": 2,
    "first_process_is_ours": True,
    "descriptors": [0, 1, 2],
}


@dataclass(frozen=True)
class ProbeResult:
    """Whether jobs can be sandboxed here, and if not, why."""

    available: bool
    reason: str


SandboxLaunch = Callable[[Sequence[str], SandboxSpec], SandboxedProcess | UnitProcess]


def probe(launcher: SandboxLaunch = launch) -> ProbeResult:
    """Enter a sandbox and check from inside that its walls stand; takes about the start of one Python."""
    read, write = os.pipe()
    try:
        spec = SandboxSpec(scratch_bytes=1 << 20, pass_fds={1: write})
        with launcher([sys.executable, "-I", "-S", "-c", _LOOK_AROUND], spec) as process:
            os.close(write)
            write = -1
            with os.fdopen(os.dup(read), "rb") as file:
                said = file.read(65536)
            code = process.wait()
    except SandboxError as error:
        return ProbeResult(available=False, reason=f"{error}; what a host needs: docs/explanation/sandbox.md")
    finally:
        os.close(read)
        if write >= 0:
            os.close(write)
    if code != 0:
        return ProbeResult(available=False, reason=f"the program inside ended with code {code}")
    found = json.loads(said)
    breaches = [name for name, value in _EXPECTED.items() if found.get(name) != value]
    if breaches:
        return ProbeResult(available=False, reason=f"the sandbox does not hold: {', '.join(breaches)}")
    return ProbeResult(available=True, reason="")
