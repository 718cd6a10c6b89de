# SPDX-License-Identifier: Apache-2.0
"""What a sandboxed program gets: the whole of it, since anything not named here does not exist inside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cloister_workers.sandbox.errors import SandboxSpecError
from cloister_workers.sandbox.interpreter import python_paths

MAX_TARGET_FD = 255
_TOO_WIDE = frozenset(
    Path("/", name) for name in ("", "dev", "etc", "home", "opt", "proc", "root", "run", "srv", "sys", "tmp", "var")
)
_OWN = (Path("/auxiliary"), Path("/dev"), Path("/etc"), Path("/model"), Path("/proc"), Path("/scratch"), Path("/sys"))


@dataclass(frozen=True, kw_only=True)
class SandboxSpec:
    """What the inside sees and may use. Paths are host paths, sizes are bytes."""

    model_dir: Path | None = None
    """Directory bound read-only at /model; no other file of the host's data is visible, but for the next."""
    auxiliary_dir: Path | None = None
    """Directory of a second model, bound read-only at /auxiliary."""
    python_paths: tuple[Path, ...] = field(default_factory=python_paths)
    """Bound read-only at their own paths: interpreter, its packages, and the sources that an editable install names."""
    scratch_bytes: int = 1 << 30
    """Size of the tmpfs at /scratch (also /tmp and /dev/shm); beyond it, writes fail with ENOSPC."""
    scratch_exec: bool = False
    """Whether code may be mapped from /scratch; a compiler that writes shared objects needs it."""
    memory_bytes: int | None = None
    """Limit per process: address space, or with a GPU (whose driver reserves far more than it uses) private data."""
    file_bytes: int | None = None
    """Largest file that may be written, memfds included; by default as much as the scratch holds."""
    process_limit: int = 4096
    """Processes and threads."""
    pass_fds: Mapping[int, int] = field(default_factory=dict)
    """Descriptor number inside -> our descriptor. 0, 1 and 2 are /dev/null unless named; nothing else is open."""
    allow_gpu: bool = False
    """Whether the NVIDIA device nodes, and what of /sys tells about PCI, are there."""
    loopback: bool = False
    """Whether `lo` is up and internet and netlink sockets work on it, as collectives between processes need."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Added to, and taking precedence over, the fixed environment of `layout.environment`."""

    def __post_init__(self) -> None:
        """Raise SandboxSpecError for what would open the sandbox or cannot work."""
        self._check_paths()
        for name in ("scratch_bytes", "memory_bytes", "file_bytes", "process_limit"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise SandboxSpecError(f"{name} is {value}; give a number above 0")
        for target in self.pass_fds:
            if not 0 <= target <= MAX_TARGET_FD:
                raise SandboxSpecError(f"descriptor {target} inside is not within 0..{MAX_TARGET_FD}")
        for name, text in self.env.items():
            if not name or "=" in name or "\0" in name + text:
                raise SandboxSpecError(f"environment variable {name!r} cannot be passed on")

    def _check_paths(self) -> None:
        for path in self.python_paths:
            _check_path(path)
            if any(path.is_relative_to(own) for own in _OWN):
                raise SandboxSpecError(f"python path {path} lies where the sandbox puts its own files")
        for model in (self.model_dir, self.auxiliary_dir):
            if model is None:
                continue
            _check_path(model)
            if not model.is_dir():
                raise SandboxSpecError(f"model directory {model} is not a directory")


def _check_path(path: Path) -> None:
    if not path.is_absolute() or ".." in path.parts:
        raise SandboxSpecError(f"path {path} must be absolute and without '..'")
    if path in _TOO_WIDE or path.resolve() in _TOO_WIDE:
        raise SandboxSpecError(f"path {path} would show far more than one directory of code or one model")
