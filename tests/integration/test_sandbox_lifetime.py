# SPDX-License-Identifier: Apache-2.0
"""How a sandboxed program starts, what it is handed, and when it ends; the probe; and life without a sandbox."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloister_workers.sandbox.errors import SandboxStartError
from cloister_workers.sandbox.launch import SandboxedProcess, launch
from cloister_workers.sandbox.probe import probe
from cloister_workers.sandbox.spec import SandboxSpec
from cloister_workers.sandbox.unsandboxed import launch_unsandboxed
from sandbox_host import HOLD, IDENTITIES, PATIENCE, SOURCES, Host, assert_all_end, descendants, program, running_host


@pytest.fixture(params=list(IDENTITIES), scope="module")
def host(request) -> Iterator[Host]:
    """One host for each identity."""
    with running_host(request.param) as host:
        yield host


@pytest.mark.parametrize("victim", ["agent", "launcher", "init", "program"])
def test_all_ends_with_any_of_its_ancestors(host, victim):
    """SIGKILL to agent, launcher, init or program must end everything inside, processes of other sessions included."""
    with host.start(HOLD) as agent:
        assert agent.stdout is not None
        launcher = json.loads(agent.stdout.readline())["launcher"]
        assert "up" == json.loads(agent.stdout.readline())
        inside = descendants(launcher)
        assert 5 == len(inside)  # launcher, init, program, its child and grandchild
        chosen = {"agent": agent.pid, "launcher": launcher, "init": inside[1], "program": inside[2]}[victim]
        assert_all_end(inside, lambda: os.kill(chosen, signal.SIGKILL))


def _run_here(code: str, spec: SandboxSpec | None = None, start=launch):
    with start(program(code), spec or SandboxSpec()) as process:
        return process.wait(PATIENCE / 1000)


def test_descriptors_arrive_at_their_numbers():
    """Passed descriptors must arrive at the numbers asked for, also where those cross ours, and no other be open."""
    first, second = (os.memfd_create(name) for name in ("first", "second"))
    os.write(first, b"first")
    os.write(second, b"second")
    read, write = os.pipe()
    code = """
import os
print(os.pread(int(NUMBERS[0]), 9, 0), os.pread(int(NUMBERS[1]), 9, 0),
      [fd for fd in range(256) if os.path.exists(f"/proc/self/fd/{fd}")])
"""
    spec = SandboxSpec(pass_fds={second: first, first: second, 1: write})
    assert 0 == _run_here(code.replace("NUMBERS", f"({second}, {first})"), spec)
    for fd in (first, second, write):
        os.close(fd)
    with os.fdopen(read) as said:
        assert f"b'first' b'second' {[0, 1, 2, first, second]}\n" == said.read()


def test_control_socket_carries_descriptors_out():
    """Over a passed AF_UNIX socket the program must be able to send a memfd, as results leave the sandbox."""
    ours, theirs = socket.socketpair()
    code = """
import os, socket
fd = os.memfd_create("result")
os.write(fd, b"weights")
socket.send_fds(socket.socket(fileno=3), [b"r"], [fd])
"""
    with ours, launch(program(code), SandboxSpec(pass_fds={3: theirs.fileno()})) as process:
        theirs.close()
        assert 0 == process.wait(PATIENCE / 1000)
        data, fds, _, _ = socket.recv_fds(ours, 16, 4)
        assert (b"r", b"weights") == (data, os.pread(fds[0], 99, 0))
        os.close(fds[0])
        assert b"" == ours.recv(1)


def test_kill_ends_theprogram():
    """kill() must end a program that waits forever, and may be called again."""
    with launch(program("import signal; signal.pause()"), SandboxSpec()) as process:
        assert process.returncode is None
        with pytest.raises(TimeoutError):
            process.wait(0)
        process.kill()
        process.kill()
        assert -signal.SIGKILL == process.wait(PATIENCE / 1000) == process.returncode


def test_program_outlives_the_thread_that_launched_it():
    """The program's life must hang on the agent, not on the thread of a pool that happened to launch it."""
    ours, theirs = socket.socketpair()
    code = "import socket; s = socket.socket(fileno=3); s.send(s.recv(9))"
    started: list[SandboxedProcess] = []
    spec = SandboxSpec(pass_fds={3: theirs.fileno()})
    thread = threading.Thread(target=lambda: started.append(launch(program(code), spec)))
    thread.start()
    thread.join()
    with ours, theirs, started[0] as process:
        ours.send(b"alive")
        assert b"alive" == ours.recv(9)
        assert 0 == process.wait(PATIENCE / 1000)


def test_missing_program_is_reported():
    """A program that is not there inside must raise with stage and errno, and leave nothing running."""
    with pytest.raises(SandboxStartError) as caught:
        launch(["/nonexistent/python"], SandboxSpec())
    assert ("program", 2) == (caught.value.stage, caught.value.errno)


@pytest.mark.skipif(os.geteuid() != 0, reason="only a root agent's program becomes another user")
def test_unreadable_model_is_reported(tmp_path):
    """A model that the sandbox's user cannot read must be refused at start with what to do about it."""
    (tmp_path / "model").mkdir(mode=0o700)
    with pytest.raises(SandboxStartError, match="world-readable") as caught:
        launch(program("pass"), SandboxSpec(model_dir=tmp_path / "model"))
    assert "user" == caught.value.stage


def test_torch_works_inside():
    """torch must import and compute a small linear layer, forward and backward, by threads as well."""
    code = """
import torch
layer = torch.nn.Linear(64, 64)
loss = layer(torch.ones(512, 64)).square().mean()
loss.backward()
raise SystemExit(0 if torch.isfinite(layer.weight.grad).all() else 1)
"""
    assert 0 == _run_here(code)


def test_our_packages_can_be_imported_inside():
    """The trainer's own package must be there at its path, and not the checkout that it may lie in."""
    root = repr(SOURCES)
    code = f"import sys; sys.path.append({root}); import cloister_workers.protocol"
    assert 0 == _run_here(code)
    listing = f"import os; raise SystemExit(os.listdir({root}) != ['cloister_workers'])"
    installed = SOURCES.startswith((sys.prefix, sys.base_prefix))
    assert installed or 0 == _run_here(listing)


def test_probe_finds_a_sandbox():
    """Where the other tests can run, the probe must say so."""
    result = probe()
    assert ("", True) == (result.reason, result.available)


def test_probe_notices_missing_walls():
    """A launcher that builds no walls must be found out, wall by wall."""
    result = probe(launch_unsandboxed)
    assert not result.available
    for wall in ("network", "internet_sockets_denied", "capabilities", "seccomp", "first_process_is_ours"):
        assert (wall == "capabilities" and os.geteuid() != 0) or wall in result.reason


def test_probe_passes_the_reason_on():
    """Where a sandbox cannot be entered, the probe must say at which stage and why instead of raising."""

    def refuse(argv, spec):
        raise SandboxStartError("user and pid namespace", 1, "Operation not permitted")

    result = probe(refuse)
    assert (False, True) == (result.available, "'user and pid namespace': Operation not permitted" in result.reason)


def test_unsandboxed_keeps_the_interface(tmp_path):
    """Without a sandbox the program must still get its descriptors, environment and scratch, and lose the scratch."""
    read, write = os.pipe()
    code = """
import json, os
descriptors = sorted(map(int, os.listdir("/proc/self/fd")))[:-1]
print(json.dumps([os.getcwd(), os.environ["HOME"], sorted(os.environ), descriptors]))
raise SystemExit(3)
"""
    spec = SandboxSpec(model_dir=tmp_path, pass_fds={1: write})
    with launch_unsandboxed(program(code), spec) as process:
        os.close(write)
        with os.fdopen(read) as file:
            cwd, home, names, fds = json.load(file)
        assert 3 == process.wait(PATIENCE / 1000)
        assert (str(tmp_path), process.scratch_path, process.scratch_path) == (process.model_path, cwd, home)
    assert (False, [0, 1, 2]) == (process.sandboxed, fds)
    assert "PATH" in names
    assert not Path(process.scratch_path).exists()


def test_unsandboxed_ends_with_itschildren():
    """Without a pid namespace, the launcher must itself end what the program left behind."""
    read, write = os.pipe()
    with launch_unsandboxed(program(HOLD), SandboxSpec(pass_fds={1: write})) as process:
        os.close(write)
        with os.fdopen(read, "rb", buffering=0) as said:
            assert b"up\n" == said.readline()
        processes = descendants(process.pid)
        assert 4 == len(processes)
        assert_all_end(processes[1:], process.kill)
        assert -signal.SIGKILL == process.wait(PATIENCE / 1000)


def test_unsandboxed_reports_a_missingprogram():
    """A missing program must raise as in the sandbox."""
    with pytest.raises(SandboxStartError) as caught:
        launch_unsandboxed(["/nonexistent/python"], SandboxSpec())
    assert "program" == caught.value.stage
