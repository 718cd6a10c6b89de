# SPDX-License-Identifier: Apache-2.0
"""Turn a `SandboxSpec` into the launcher's `Plan`: every path, limit and variable of the inside stands here."""

from __future__ import annotations

import re
import resource
from collections.abc import Mapping, Sequence
from pathlib import Path

from cloister_workers.sandbox import seccomp
from cloister_workers.sandbox.interpreter import without_nested
from cloister_workers.sandbox.plan import Plan
from cloister_workers.sandbox.spec import SandboxSpec

MODEL = "/model"
AUXILIARY = "/auxiliary"
SCRATCH = "/scratch"

OPEN_FILES = 4096
# Below one page no core is written, and at exactly 1 the kernel also skips a core handler (core_pattern "|..."),
# which at 0 would be handed the plaintext in memory: core(5), fs/coredump.c.
CORE_BYTES = 1

_SYSTEM = ("bin", "lib", "lib32", "lib64", "libx32", "sbin", "usr")
_ETC = ("/etc/alternatives", "/etc/ld.so.cache")
_SYS = ("/sys/devices/system/cpu", "/sys/devices/system/node")  # how many cores, and which memory is near
_SYS_GPU = ("/sys/bus/pci/devices", "/sys/class/pci_bus")
_DEVICES = ("/dev/full", "/dev/null", "/dev/random", "/dev/urandom", "/dev/zero")
_GPU_DEVICE = re.compile(r"nvidia(\d+|ctl|-uvm|-uvm-tools)")

_LINKS = [
    ("/tmp", "scratch"),  # noqa: S108
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
    ("/dev/shm", f"{SCRATCH}/.shm"),  # noqa: S108
]
_FILES = [
    ("/etc/passwd", f"trainer:x:1000:1000::{SCRATCH}:/usr/sbin/nologin\nnobody:x:65534:65534::/:/usr/sbin/nologin\n"),
    ("/etc/group", "trainer:x:1000:\nnogroup:x:65534:\n"),
    ("/etc/hosts", "127.0.0.1 localhost sandbox\n::1 localhost\n"),
    ("/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n"),
]


def environment(scratch: str, extra: Mapping[str, str]) -> dict[str, str]:
    """Return the whole environment of a program: nothing of the agent's own passes on.

    Model libraries are told to stay offline, so that they fail at once instead of trying, and to keep caches in
    this job's scratch, so that nothing executable is shared between jobs.
    """
    return {
        "HOME": scratch,
        "TMPDIR": scratch,
        "XDG_CACHE_HOME": f"{scratch}/cache",
        "HF_HOME": f"{scratch}/cache/huggingface",
        "TORCHINDUCTOR_CACHE_DIR": f"{scratch}/cache/inductor",
        "TRITON_CACHE_DIR": f"{scratch}/cache/triton",
        "LANG": "C.UTF-8",
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "USER": "trainer",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "DISABLE_SAFETENSORS_CONVERSION": "1",
        **extra,
    }


def limits(spec: SandboxSpec) -> list[tuple[int, int]]:
    """Return (RLIMIT_*, value) for every process inside."""
    return [
        (resource.RLIMIT_CORE, CORE_BYTES),
        (resource.RLIMIT_NOFILE, OPEN_FILES),
        (resource.RLIMIT_NPROC, spec.process_limit),
        (resource.RLIMIT_FSIZE, spec.file_bytes or spec.scratch_bytes),
    ]


def own_limits(spec: SandboxSpec) -> list[tuple[int, int]]:
    """Return the limits of the program alone."""
    if spec.memory_bytes is None:
        return []
    return [(resource.RLIMIT_DATA if spec.allow_gpu else resource.RLIMIT_AS, spec.memory_bytes)]


def sandbox_plan(argv: Sequence[str], spec: SandboxSpec, fds: Mapping[int, int]) -> Plan:
    """Return the plan; `fds` maps descriptor numbers inside to numbers in the launcher."""
    binds, links = _system()
    binds += [(path, path, False) for path in (*_ETC, *_SYS, *(_SYS_GPU if spec.allow_gpu else ()))]
    system = tuple(Path("/", name) for name in _SYSTEM)
    outside_system = {path for path in spec.python_paths if not any(map(path.is_relative_to, system))}
    binds += [(str(path), str(path), True) for path in without_nested(outside_system)]
    if spec.model_dir:
        binds.append((str(spec.model_dir), MODEL, False))
    if spec.auxiliary_dir:
        binds.append((str(spec.auxiliary_dir), AUXILIARY, False))
    families = [seccomp.AF_UNIX]
    if spec.loopback:
        families += [seccomp.AF_INET, seccomp.AF_INET6, seccomp.AF_NETLINK]
    return Plan(
        argv=list(argv),
        env=environment(SCRATCH, spec.env),
        cwd=SCRATCH,
        fds=dict(fds),
        limits=limits(spec),
        own_limits=own_limits(spec),
        binds=[bind for bind in binds if Path(bind[0]).exists()],
        devices=_devices(gpu=spec.allow_gpu),
        links=links + _LINKS,
        files=_FILES,
        scratch_bytes=spec.scratch_bytes,
        scratch_exec=spec.scratch_exec,
        loopback=spec.loopback,
        families=families,
    )


def _system() -> tuple[list[tuple[str, str, bool]], list[tuple[str, str]]]:
    """Return the system's directories to bind, and those that are links on a merged-/usr system."""
    binds: list[tuple[str, str, bool]] = []
    links: list[tuple[str, str]] = []
    for name in _SYSTEM:
        path = Path("/", name)
        if path.is_symlink():
            links.append((str(path), str(path.readlink())))
        elif path.is_dir():
            binds.append((str(path), str(path), True))
    return binds, links


def _devices(*, gpu: bool) -> list[str]:
    found = [Path(path) for path in _DEVICES]
    if gpu:
        found += sorted(path for path in Path("/dev").glob("nvidia*") if _GPU_DEVICE.fullmatch(path.name))
        found += sorted(Path("/dev/nvidia-caps").glob("*"))
    return [str(path) for path in found if path.exists()]
