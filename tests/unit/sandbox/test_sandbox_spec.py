# SPDX-License-Identifier: Apache-2.0
"""What may be asked of a sandbox, and the plan that comes of it."""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path

import pytest

from cloister_workers.sandbox import seccomp
from cloister_workers.sandbox.errors import SandboxSpecError
from cloister_workers.sandbox.interpreter import python_paths, without_nested
from cloister_workers.sandbox.launch import check_argv, launch, private_copies
from cloister_workers.sandbox.layout import environment, sandbox_plan
from cloister_workers.sandbox.plan import Plan
from cloister_workers.sandbox.spec import SandboxSpec


@pytest.mark.parametrize("path", ["/", "/home", "/root", "/etc", "/var", "/tmp", "relative", "/srv/../etc"])
def test_wide_paths_are_refused(path):
    """A path that would show much of the host must be refused, for code and for the model."""
    with pytest.raises(SandboxSpecError, match="path"):
        SandboxSpec(python_paths=(Path(path),))
    with pytest.raises(SandboxSpecError, match="path"):
        SandboxSpec(python_paths=(), model_dir=Path(path))


def test_link_to_a_wide_path_is_refused(tmp_path):
    """A harmless name for a wide directory must be refused as the directory is."""
    (tmp_path / "model").symlink_to("/etc")
    with pytest.raises(SandboxSpecError, match="would show"):
        SandboxSpec(model_dir=tmp_path / "model", python_paths=())


@pytest.mark.parametrize("path", ["/proc/1", "/dev/shm", "/model/code", "/scratch/x", "/sys/kernel", "/etc/cloister"])
def test_python_paths_keep_off_the_sandbox_own_directories(path):
    """Code must not be bound over, or from, what the sandbox makes itself."""
    with pytest.raises(SandboxSpecError, match="its own files"):
        SandboxSpec(python_paths=(Path(path),))


@pytest.mark.parametrize(
    "values",
    [
        {"scratch_bytes": 0},
        {"memory_bytes": -1},
        {"file_bytes": 0},
        {"process_limit": 0},
        {"pass_fds": {-1: 0}},
        {"pass_fds": {256: 0}},
        {"env": {"A=B": "c"}},
        {"env": {"": "c"}},
        {"env": {"A": "c\0"}},
    ],
)
def test_values_without_meaning_are_refused(values):
    """Numbers, descriptors and variables that cannot be passed must be refused before anything starts."""
    with pytest.raises(SandboxSpecError):
        SandboxSpec(python_paths=(), **values)


def test_missing_model_is_refused(tmp_path):
    """A model directory that is not there must be named in the error."""
    with pytest.raises(SandboxSpecError, match="missing"):
        SandboxSpec(model_dir=tmp_path / "missing", python_paths=())


@pytest.mark.parametrize("argv", [[], ["python"], ["/bin/true", "a\0b"]])
def test_argv_must_be_executable(argv):
    """argv must be refused unless it starts with an absolute path and can be passed on."""
    with pytest.raises(SandboxSpecError):
        check_argv(argv)


def test_directory_descriptors_are_refused(tmp_path):
    """A directory's descriptor must be refused, because the rest of the host is reachable from it."""
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(SandboxSpecError, match="directory"), private_copies({3: fd}):
            pass
    finally:
        os.close(fd)


def test_closed_descriptors_are_refused():
    """A descriptor that is not open must be named before anything starts."""
    with pytest.raises(SandboxSpecError, match="1000000"):
        launch(["/bin/true"], SandboxSpec(python_paths=(), pass_fds={3: 1_000_000}))


def test_private_copies_are_closed():
    """The copies of descriptors must be closed again, so that ends of files are seen."""
    read, write = os.pipe()
    with private_copies({3: write}):
        os.close(write)
    assert b"" == os.read(read, 1)
    os.close(read)


def test_plan_survives_its_encoding():
    """Every attribute of a plan must come out as it went in."""
    plan = sandbox_plan(["/bin/true"], SandboxSpec(memory_bytes=5, loopback=True), {3: 9})
    decoded = Plan.decode(plan.encode())
    assert {n: getattr(plan, n) for n in Plan.__slots__} == {n: getattr(decoded, n) for n in Plan.__slots__}


def test_environment_takes_nothing_from_ours(monkeypatch):
    """No variable of the agent may reach the program; the caller's own win over the fixed ones."""
    monkeypatch.setenv("CLOISTER_SECRET", "x")
    made = environment("/scratch", {"HOME": "/elsewhere"})
    assert "CLOISTER_SECRET" not in made
    assert ("/elsewhere", "/scratch", "1") == (made["HOME"], made["TMPDIR"], made["HF_HUB_OFFLINE"])


def test_internet_families_come_with_loopback_alone():
    """Without loopback only AF_UNIX sockets may be made."""
    plain, looped = (sandbox_plan(["/x"], SandboxSpec(loopback=on), {}).families for on in (False, True))
    assert [seccomp.AF_UNIX] == plain
    assert {seccomp.AF_UNIX, seccomp.AF_INET, seccomp.AF_INET6, seccomp.AF_NETLINK} == set(looped)


def test_limits_follow_the_spec():
    """Files are as large as the scratch by default, and memory is address space only where there is no GPU driver."""
    spec = SandboxSpec(scratch_bytes=1 << 20, memory_bytes=1 << 30)
    assert 1 << 20 == dict(sandbox_plan(["/x"], spec, {}).limits)[resource.RLIMIT_FSIZE]
    assert [(resource.RLIMIT_AS, 1 << 30)] == sandbox_plan(["/x"], spec, {}).own_limits
    gpu = SandboxSpec(memory_bytes=1 << 30, allow_gpu=True)
    assert [(resource.RLIMIT_DATA, 1 << 30)] == sandbox_plan(["/x"], gpu, {}).own_limits


def test_only_the_model_and_code_are_bound_beside_the_system(tmp_path):
    """Sources of binds must be the system's read-only parts, the python paths and the model."""
    code, model = tmp_path / "code", tmp_path / "model"
    code.mkdir()
    model.mkdir()
    spec = SandboxSpec(model_dir=model, python_paths=(code, Path("/usr/lib/python3")))
    system = ("/usr", "/bin", "/sbin", "/lib", "/etc/alternatives", "/etc/ld.so.cache", "/sys/devices/system")
    others = {bind[:2] for bind in sandbox_plan(["/x"], spec, {}).binds if not bind[0].startswith(system)}
    assert {(str(code), str(code)), (str(model), "/model")} == others


def test_python_paths_hold_interpreter_and_packages():
    """The paths must cover the interpreter, however it is linked, and our packages without the checkout around them."""
    paths = python_paths()
    for needed in (
        sys.executable,
        os.path.realpath(sys.executable),
        sys.prefix,
        os.__file__,
        __import__("cloister").__path__[0],
    ):
        assert any(Path(needed).is_relative_to(path) for path in paths), needed
    assert not any(Path(__file__).is_relative_to(path) for path in paths)


def test_nested_paths_are_left_out():
    """A path within another must not be bound twice."""
    given = {Path("/a/b/c"), Path("/a/b"), Path("/a/bc"), Path("/d")}
    assert (Path("/d"), Path("/a/b"), Path("/a/bc")) == without_nested(given)
