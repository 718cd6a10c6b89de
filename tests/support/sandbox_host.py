# SPDX-License-Identifier: Apache-2.0
"""Agents of several kinds on this host, each able to run code in a sandbox: for the tests of the sandbox.

An agent is the user that runs the tests ("own"), an ordinary user ("nobody"), or root without capabilities, as in a
container ("bare-root"). The last two exist only where the tests run as root. The ordinary user runs the system's
interpreter, because another one may lie in a home directory that it cannot enter.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

import cloister_workers

SOURCES = str(Path(cloister_workers.__file__).parent.parent)
SYSTEM_PYTHON = "/usr/bin/python3"
MACHINE = os.uname().machine
PATIENCE = 30_000  # milliseconds that an event may take before the test fails; nothing waits this long otherwise

# Plays the agent under another identity: launches what it is told, and says what came out.
AGENT = """
import json, os, sys
from pathlib import Path
sys.path.append(sys.argv[1])
from cloister_workers.sandbox.launch import launch
from cloister_workers.sandbox.spec import SandboxSpec
order = json.loads(sys.stdin.read())
read, write = os.pipe()
model = Path(order["model"]) if order["model"] else None
second = {name: Path(path) for name, path in order["spec"].items() if name == "auxiliary_dir"}
spec = SandboxSpec(model_dir=model, pass_fds={1: write, 2: write}, **{**order["spec"], **second})
with launch([sys.executable, "-I", "-c", order["code"]], spec) as process:
    os.close(write)
    print(json.dumps({"launcher": process.pid}), flush=True)
    said = ""
    for line in open(read):
        said += line
        if line == "up\\n":
            print(json.dumps("up"), flush=True)
    print(json.dumps({"said": said, "code": process.wait()}), flush=True)
"""

# Runs inside: `attempt` names the error of a call, or says "ok".
PRELUDE = """
import ctypes, errno, json, os, resource, socket
def attempt(call, *arguments):
    try:
        call(*arguments)
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error))
    return "ok"
def write_file(path, content=b"x"):
    with open(path, "wb") as file:
        file.write(content)
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
def raw(number, *arguments):
    padded = (arguments + (0,) * 6)[:6]
    if libc.syscall(ctypes.c_long(number), *map(ctypes.c_long, padded)) == -1:
        raise OSError(ctypes.get_errno(), "")
"""

# Runs inside: a program whose descendants left its session.
HOLD = """
import os, signal
if os.fork() == 0:
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if os.fork() == 0:
        os.write(1, b"up\\n")
signal.pause()
"""


def _identities() -> dict[str, list[str] | None]:
    """Command prefixes that give the agent its identity; None where this machine cannot provide it."""
    found: dict[str, list[str] | None] = {"own": [sys.executable], "nobody": None, "bare-root": None}
    if os.geteuid() == 0 and shutil.which("setpriv"):
        no_rights = ["setpriv", "--inh-caps=-all", "--clear-groups"]
        # Mapping root into a user namespace takes this one capability, which containers leave to their root.
        found["bare-root"] = [*no_rights, "--bounding-set=-all,+setfcap", sys.executable]
        nobody = [*no_rights, "--bounding-set=-all", "--reuid=65534", "--regid=65534", SYSTEM_PYTHON]
        modern = (
            "import sys; sys.path.append(sys.argv[1]); import cloister_workers; sys.exit(sys.version_info < (3, 11))"
        )
        reachable = Path(SYSTEM_PYTHON).exists() and subprocess.run(
            [*nobody, "-I", "-B", "-c", modern, SOURCES], check=False, capture_output=True
        )
        if reachable and reachable.returncode == 0:
            found["nobody"] = nobody
    return found


IDENTITIES = _identities()


class Host:
    """An agent of some identity on this host, with a model, secrets and a listening port beside it."""

    def __init__(self, identity: str, directory: Path, port: int) -> None:
        self.identity = identity
        self.directory = directory
        self.port = port
        self.model = directory / "model"

    def start(self, code: str, **spec: object) -> subprocess.Popen[str]:
        """Start an agent that runs `code` in a sandbox."""
        command = IDENTITIES[self.identity]
        assert command is not None
        umask = spec.pop("umask", 0o022)
        assert isinstance(umask, int)
        agent = subprocess.Popen(
            [*command, "-I", "-B", "-c", AGENT, SOURCES],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            umask=umask,
        )
        assert agent.stdin is not None
        agent.stdin.write(json.dumps({"code": code, "spec": spec, "model": str(self.model)}))
        agent.stdin.close()
        return agent

    def run(self, code: str, **spec: object) -> tuple[str, int]:
        """Run `code` in a sandbox; return what it wrote and how it ended."""
        with self.start(code, **spec) as agent:
            assert agent.stdout is not None
            lines = [json.loads(line) for line in agent.stdout]
        assert 2 == len(lines), lines
        return lines[1]["said"], lines[1]["code"]

    def ask(self, code: str, **spec: object) -> object:
        """Run `code`, which sets `answer`, and return the answer."""
        said, ended = self.run(f"{PRELUDE}\n{code}\nprint(json.dumps(answer))", **spec)
        assert 0 == ended, said
        return json.loads(said)


@contextmanager
def running_host(identity: str) -> Iterator[Host]:
    """Make a host of that identity; other users must be able to reach it, hence not in pytest's directory."""
    if IDENTITIES[identity] is None:
        pytest.skip(f"no agent of kind {identity}: tests do not run as root, or it cannot reach an interpreter")
    directory = Path(tempfile.mkdtemp(prefix="cloister-test-"))
    directory.chmod(0o755)
    (directory / "model").mkdir(mode=0o755)
    (directory / "model" / "config.json").write_text("{}")
    (directory / "host.key").write_text("AGE-SECRET-KEY-PQ-1TEST")
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, directory)
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        hidden = stack.enter_context(socket.socket(socket.AF_UNIX))
        hidden.bind("\0" + directory.name)
        hidden.listen()
        yield Host(identity, directory, server.getsockname()[1])


def children(pid: int) -> list[int]:
    """Return the children of a process."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def descendants(pid: int) -> list[int]:
    """Return a process and all below it, each parent before its children."""
    return [pid, *(below for child in children(pid) for below in descendants(child))]


def _kill(pidfd: int) -> None:
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)


def assert_all_end(pids: list[int], end: Callable[[], None]) -> None:
    """Call `end` and see each process end, by descriptors that a reused number cannot deceive."""
    with ExitStack() as stack:
        watched = [os.pidfd_open(pid) for pid in pids]
        for fd in watched:
            stack.callback(os.close, fd)
            stack.callback(_kill, fd)  # so that a failure leaves nothing behind
        end()
        for fd in watched:
            poll = select.poll()
            poll.register(fd, select.POLLIN)
            assert [fd] == [ready for ready, _ in poll.poll(PATIENCE)]


def program(code: str) -> list[str]:
    """Return the argv that runs `code` with the interpreter of the tests."""
    return [sys.executable, "-I", "-c", code]
