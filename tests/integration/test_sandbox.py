# SPDX-License-Identifier: Apache-2.0
"""The sandbox, really entered by each kind of agent: what the inside sees and what it cannot do."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloister_workers.sandbox import seccomp
from cloister_workers.sandbox.interpreter import python_paths
from cloister_workers.sandbox.layout import environment
from sandbox_host import IDENTITIES, MACHINE, PRELUDE, Host, running_host

LOOK_AROUND = """
def status_of(process):
    lines = open(f"/proc/{process}/status").read().splitlines()
    status = dict(line.split(":\\t", 1) for line in lines)
    capabilities = [int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")]
    return [capabilities, status["NoNewPrivs"], status["Seccomp"]]
answer = {
    "interfaces": [line.split(":")[0].strip() for line in open("/proc/net/dev").readlines()[2:]],
    "routes": [line.split()[0] for line in open("/proc/net/route").readlines()[1:]]
              + [line.split()[-1] for line in open("/proc/net/ipv6_route") if line.split()[-1] != "lo"],
    "sockets": {str(f): attempt(socket.socket, f, socket.SOCK_STREAM if f < 16 else socket.SOCK_RAW)
                for f in (1, 2, 10, 16, 17, 38, 40)},
    "connect": attempt(socket.create_connection, ("127.0.0.1", PORT), 5),
    "resolves": attempt(socket.getaddrinfo, "example.org", 443),
    "abstract": attempt(socket.socket(socket.AF_UNIX).connect, "\\0" + ABSTRACT),
    "secret": [attempt(open, path) for path in SECRETS],
    "root": sorted(os.listdir("/")),
    "private": {path: os.listdir(path) for path in ("/root", "/home", "/tmp", "/var", "/run", "/srv", "/opt")
                if os.path.isdir(path)},
    "dev": sorted(os.listdir("/dev")),
    "etc": sorted(os.listdir("/etc")),
    "model": open("/model/config.json").read(),
    "writes": {path: attempt(write_file, path) for path in WRITES},
    "status": {process: status_of(process) for process in ("1", "self")},
    "denied": {name: attempt(raw, number) for name, number in DENIED.items()},
    "namespaces": [attempt(raw, UNSHARE, flag) for flag in (0x10000000, 0x20000, 0x40000000, 0x20000000)],
    "clone_namespace": attempt(raw, CLONE, 0x10000000 | 17),
    "clone3": attempt(raw, 435),
    "kill_init": attempt(os.kill, 1, 0),
    "pids": sorted(int(name) for name in os.listdir("/proc") if name.isdigit()),
    "my_pid": os.getpid(),
    "other_memory": attempt(open, "/proc/1/mem", "rb"),
    "descriptors": sorted(int(fd) for fd in os.listdir("/proc/self/fd") if os.path.exists("/proc/self/fd/" + fd)),
    "standard_input": os.readlink("/proc/self/fd/0"),
    "environment": dict(os.environ),
    "cwd": os.getcwd(),
    "session": os.getsid(0) == os.getpid(),
    "ids": [os.getresuid(), os.getresgid()],
    "uid_map": open("/proc/self/uid_map").read().split(),
    "host": os.uname().nodename,
    "cgroup": open("/proc/self/cgroup").read().split(),
    "limits": [resource.getrlimit(which) for which in
               (resource.RLIMIT_CORE, resource.RLIMIT_NOFILE, resource.RLIMIT_NPROC, resource.RLIMIT_FSIZE)],
    "oom": int(open("/proc/self/oom_score_adj").read()),
    "links": {name: os.readlink("/proc/self/ns/" + name) for name in
              ("user", "net", "mnt", "pid", "ipc", "uts", "cgroup")},
}
"""


def _column(pair):
    return pair[list(seccomp.AUDIT_ARCH).index(MACHINE)]


DENIED = {name: _column(pair) for name, pair in seccomp.DENIED.items() if _column(pair) is not None}


READ_ONLY = [
    *("/new", "/usr/new", "/etc/new", "/dev/new", "/sys/devices/system/cpu/new", "/model/new", "/model/config.json"),
    *("/proc/sys/kernel/core_pattern", "/proc/self/oom_score_adj"),
]


@pytest.fixture(params=list(IDENTITIES), scope="module")
def host(request) -> Iterator[Host]:
    """One host for each identity."""
    with running_host(request.param) as host:
        yield host


@pytest.fixture(scope="module")
def facts(host):
    """What one look around from inside found."""
    names = {
        "PORT": host.port,
        "ABSTRACT": host.directory.name,
        "SECRETS": [str(host.directory / "host.key"), "/etc/shadow", "/etc/hostname", "/proc/1/environ", __file__],
        "DENIED": {name: number for name, number in DENIED.items() if name != "unshare"},
        "UNSHARE": DENIED["unshare"],
        "WRITES": [*READ_ONLY, "/scratch/new", "/dev/shm/new"],
        "CLONE": _column(seccomp.CLONE),
    }
    code = "\n".join(f"{name} = {value!r}" for name, value in names.items()) + LOOK_AROUND
    return host.ask(code, env={"CLOISTER_JOB": "1"})


def test_network_is_empty(facts):
    """Inside there must be only `lo`, without routes, and nothing to connect to or to resolve names with."""
    assert ["lo"] == facts["interfaces"]
    assert [] == facts["routes"]
    assert "EPERM" == facts["connect"]
    assert "ok" != facts["resolves"]


def test_sockets_are_unix_only(facts):
    """AF_UNIX must work and every other family must be refused; the host's abstract sockets must not be there."""
    refused = dict.fromkeys(("2", "10", "16", "17", "38", "40"), "EPERM")
    assert {"1": "ok", **refused} == facts["sockets"]
    assert "ECONNREFUSED" == facts["abstract"]


def test_host_files_do_not_exist(facts):
    """A planted key, the host's own secrets and this checkout must not be there, not even by name."""
    assert ["ENOENT", "ENOENT", "ENOENT", "EACCES", "ENOENT"] == facts["secret"]
    assert {"alternatives", "group", "hosts", "ld.so.cache", "nsswitch.conf", "passwd"} >= set(facts["etc"])
    plain = {"null", "zero", "full", "random", "urandom", "fd", "stdin", "stdout", "stderr", "shm"}
    assert plain == set(facts["dev"])


def test_directories_lead_to_code_alone(facts):
    """Of home and state directories, no more than the way to the interpreter and our packages may exist."""
    ways = {str(parent) for path in python_paths() for parent in (path, *path.parents)}
    for directory, names in facts["private"].items():
        if directory != "/tmp" or "/tmp" in ways:
            assert {f"{directory}/{name}" for name in names} <= ways


def test_only_scratch_can_be_written(facts):
    """The model, the system, /proc and the root itself must be read-only, whoever the agent is."""
    writes = facts["writes"]
    assert dict.fromkeys(READ_ONLY, "EROFS") == {path: writes[path] for path in READ_ONLY}
    assert ("ok", "ok") == (writes["/scratch/new"], writes["/dev/shm/new"])
    assert "{}" == facts["model"]


def test_no_privileges_are_left(facts):
    """In init and program, all capability sets must be empty, no_new_privs set and the filter in force."""
    bare = [[0, 0, 0, 0, 0], "1", "2"]
    assert {"1": bare, "self": bare} == facts["status"]
    assert [[1000, 1000, 1000]] * 2 == facts["ids"]


def test_user_is_not_the_hosts_root(host, facts):
    """A root agent's program must be an unprivileged user of the host; otherwise it is the agent's user."""
    owner = {"own": 65534 if os.geteuid() == 0 else os.geteuid(), "nobody": 65534, "bare-root": 0}[host.identity]
    assert ["1000", str(owner), "1"] == facts["uid_map"]


def test_denied_calls_fail(facts):
    """Every call on the filter's list must fail with EPERM, also those that need no capability."""
    assert dict.fromkeys(facts["denied"], "EPERM") == facts["denied"]


def test_no_new_namespaces(facts):
    """No namespace can be made, by unshare or by clone, and clone3 does not exist."""
    assert ["EPERM"] * 4 == facts["namespaces"]
    assert ("EPERM", "ENOSYS") == (facts["clone_namespace"], facts["clone3"])


def test_namespaces_are_not_the_hosts(facts):
    """Each namespace must be another than the host's."""
    ours = {name: str(Path(f"/proc/self/ns/{name}").readlink()) for name in facts["links"]}
    assert [] == [name for name, link in facts["links"].items() if link == ours[name]]
    assert "sandbox" == facts["host"]
    assert all(line.endswith(":/") for line in facts["cgroup"])


def test_no_host_processes(facts):
    """Inside there must be the sandbox's init and the program, and init's memory must be closed."""
    assert [1, facts["my_pid"]] == facts["pids"]
    assert "EACCES" == facts["other_memory"]


def test_only_named_descriptors_are_open(facts):
    """Without descriptors passed, only the standard three may be open, input being /dev/null."""
    assert [0, 1, 2] == facts["descriptors"]
    assert "/dev/null" == facts["standard_input"]


def test_environment_is_the_given_one(facts):
    """The environment must be the fixed one and the caller's, with nothing of the agent's."""
    assert environment("/scratch", {"CLOISTER_JOB": "1"}) == facts["environment"]
    assert ("/scratch", True) == (facts["cwd"], facts["session"])


def test_limits_are_set(facts):
    """Core, descriptor, process and file limits must hold, and the program is the first to go when memory runs out."""
    core, files, processes, size = facts["limits"]
    assert max(core) <= 1
    assert files[0] <= 4096 and processes[0] <= 4096  # noqa: PT018
    assert [1 << 30, 1 << 30] == size
    assert facts["oom"] >= 800


def test_scratch_is_limited(host):
    """Writing beyond the scratch's size must fail with ENOSPC, wherever below it."""
    code = """
answer = [attempt(write_file, path, bytes(2 << 20)) for path in ("/scratch/a", "/dev/shm/b")]
"""
    assert ["ENOSPC", "ENOSPC"] == host.ask(code, scratch_bytes=1 << 20, file_bytes=1 << 30)


def test_scratch_runs_no_code_unless_asked(host):
    """A program in the scratch must run only where the spec allows it."""
    code = """
import shutil, subprocess
shutil.copy("/usr/bin/true", "/scratch/true")
os.chmod("/scratch/true", 0o700)
answer = attempt(subprocess.run, ["/scratch/true"])
"""
    assert ["EACCES", "ok"] == [host.ask(code, scratch_exec=allowed) for allowed in (False, True)]


def test_file_size_is_limited(host):
    """A file, a memfd included, larger than allowed must fail with EFBIG."""
    code = """
fd = os.memfd_create("result")
answer = attempt(os.ftruncate, fd, 1 << 30)
"""
    assert "EFBIG" == host.ask(code, file_bytes=1 << 20)


def test_memory_is_limited(host):
    """Taking more memory than allowed must fail inside instead of burdening the host."""
    code = """
try:
    bytearray(1 << 30)
    answer = "ok"
except MemoryError:
    answer = "MemoryError"
"""
    assert "MemoryError" == host.ask(code, memory_bytes=256 << 20)


def test_loopback_reaches_the_inside_alone(host):
    """With loopback, processes inside can talk over 127.0.0.1; the host's ports and the world stay away."""
    code = f"""
server = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(server.getsockname())
client.send(b"x")
answer = [server.accept()[0].recv(1).decode(), attempt(socket.create_connection, ("127.0.0.1", {host.port}), 5),
          attempt(socket.create_connection, ("192.0.2.1", 80), 5), attempt(socket.socket, 17, socket.SOCK_RAW)]
"""
    assert ["x", "ECONNREFUSED", "ENETUNREACH", "EPERM"] == host.ask(code, loopback=True)


@pytest.mark.skipif(MACHINE != "x86_64", reason="x32 exists on x86_64 alone")
def test_foreign_calling_convention_kills(host):
    """A call by an x32 number must kill the program with SIGSYS."""
    assert -signal.SIGSYS == host.run(f"{PRELUDE}\nraw(0x40000000 | 39)")[1]


@pytest.mark.parametrize(
    ("code", "ended"),
    [("raise SystemExit(7)", 7), ("import os; os.kill(os.getpid(), 9)", -9), ("import os; os.abort()", -6)],
)
def test_returncode_is_the_programs(host, code, ended):
    """Exit codes and signals of the program must come out as its own, though it runs behind two other processes."""
    assert ended == host.run(code)[1]


def test_strict_umask_does_not_break_the_tree(host):
    """An agent whose umask is 077 must get a sandbox whose directories its program can enter."""
    assert "{}" == host.ask('answer = open("/model/config.json").read()', umask=0o077)


def test_a_second_model_is_seen_beside_the_first(host):
    """Its directory must be at /auxiliary, read-only, and must not exist where there is no second model."""
    # Not in pytest's directory, which another user cannot reach.
    with tempfile.TemporaryDirectory(prefix="cloister-test-") as directory:
        folder = Path(directory)
        (folder / "config.json").write_text("[2]")
        folder.chmod(0o755)
        found = host.ask(LOOK_AT_MODELS, auxiliary_dir=directory)
    assert ["{}", "ok", "EROFS"] == found
    assert ["{}", "ENOENT"] == host.ask(LOOK_AT_MODELS)[:2]


LOOK_AT_MODELS = """
answer = [
    open("/model/config.json").read(),
    attempt(open, "/auxiliary/config.json"),
    attempt(write_file, "/auxiliary/new"),
]
"""
