# SPDX-License-Identifier: Apache-2.0
"""Build the file tree of a sandbox and make it the root: an empty tmpfs and what the plan names, nothing else.

What is not bound cannot be named: key directories, the agent's state, other jobs and home directories do not exist
inside. Runs in the sandbox's own mount namespace, as the first process of its pid namespace.
"""

from __future__ import annotations

import errno
import os
import stat

from cloister_workers.sandbox.plan import Plan
from cloister_workers.sandbox.syscalls import (
    ATTR_NODEV,
    ATTR_NOEXEC,
    ATTR_NOSUID,
    ATTR_RDONLY,
    MS_BIND,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_PRIVATE,
    MS_RDONLY,
    MS_REC,
    detach,
    mount,
    pivot_root,
    restrict_mount,
)

STAGING = "/tmp"  # noqa: S108  covered by the new root in this mount namespace only; every source is open before
SCRATCH_INODES = 65536


def build(plan: Plan, owner: int) -> None:
    """Replace the root directory; `owner` is the user and group id, seen from here, that /scratch belongs to."""
    # Nothing mounted here may travel back to the host.
    mount("none", "/", "", MS_REC | MS_PRIVATE)
    binds = [(_open(source), target, executable) for source, target, executable in plan.binds]
    devices = [(_open(path), path) for path in plan.devices]
    sources = [source for source, _, _ in binds] + [source for source, _ in devices]

    os.umask(0o022)
    mount("tmpfs", STAGING, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=0755,size=4m,nr_inodes=4096")
    os.chdir(STAGING)
    for source, target, executable in binds:
        _bind(source, target, ATTR_RDONLY | ATTR_NOSUID | ATTR_NODEV | (0 if executable else ATTR_NOEXEC))
    for source, path in devices:
        _bind(source, path, ATTR_RDONLY | ATTR_NOSUID)
    for path, destination in plan.links:
        if os.path.lexists(_inside(path)):
            continue  # a checkout below /tmp, say: its directory was bound there, and TMPDIR still says /scratch
        _parents(path)
        os.symlink(destination, _inside(path))  # noqa: PTH211
    for path, content in plan.files:
        _parents(path)
        with open(_inside(path), "x", encoding="utf-8") as file:  # noqa: PTH123  pathlib is slow to import
            file.write(content)
    _mount_scratch(plan, owner)

    # A proc of our own shows this pid namespace alone. Read-only: as the host's root user, /proc/sys would be open.
    # It is mounted while the host's is still in sight, which the kernel asks for in a user namespace.
    os.mkdir("proc")  # noqa: PTH102
    mount("proc", "proc", "proc", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC)

    # The old root ends up mounted over the new one and is taken away whole: there is no way back to it.
    pivot_root(".", ".")
    detach(".")
    os.chdir("/")
    restrict_mount("/", ATTR_RDONLY, recursive=False)
    for fd in sources:
        os.close(fd)


def check_model_readable(model: str) -> None:
    """Raise PermissionError if the sandbox's user cannot read the model; better said now than by the trainer."""
    if not os.path.isdir(model):  # noqa: PTH112
        return
    for name in ("", *(os.listdir(model) if os.access(model, os.R_OK | os.X_OK) else ())):  # noqa: PTH208
        if not os.access(os.path.join(model, name), os.R_OK):  # noqa: PTH118
            raise PermissionError(
                errno.EACCES,
                "the model directory is not readable for the sandbox's user; make it and its files world-readable "
                "(its parents need not be)",
            )


def _open(path: str) -> int:
    return os.open(path, os.O_PATH | os.O_CLOEXEC)


def _inside(path: str) -> str:
    return path.lstrip("/")


def _parents(path: str) -> None:
    os.makedirs(os.path.dirname(_inside(path)) or ".", exist_ok=True)  # noqa: PTH103, PTH120


def _bind(source: int, target: str, attributes: int) -> None:
    path = _inside(target)
    _parents(target)
    if stat.S_ISDIR(os.fstat(source).st_mode):
        os.makedirs(path, exist_ok=True)  # noqa: PTH103
    else:
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o444))
    mount(f"/proc/self/fd/{source}", path, "", MS_BIND | MS_REC)
    # Recursive: a mount below the source must not stay writable.
    restrict_mount(path, attributes, recursive=True)


def _mount_scratch(plan: Plan, owner: int) -> None:
    os.mkdir("scratch")  # noqa: PTH102
    flags = MS_NOSUID | MS_NODEV | (0 if plan.scratch_exec else MS_NOEXEC)
    options = f"mode=0700,uid={owner},gid={owner},size={plan.scratch_bytes},nr_inodes={SCRATCH_INODES}"
    try:
        mount("tmpfs", "scratch", "tmpfs", flags, f"{options},noswap")
    except OSError as error:
        # Older kernels lack noswap and a user namespace may not ask for it; the site turns swap off (docs).
        if error.errno != errno.EINVAL:
            raise
        mount("tmpfs", "scratch", "tmpfs", flags, options)
