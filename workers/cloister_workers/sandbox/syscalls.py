# SPDX-License-Identifier: Apache-2.0
"""System calls that Python 3.11 does not offer, by ctypes; each raises OSError with the call's name.

Numbers and structures: linux/sched.h, linux/mount.h, linux/prctl.h, linux/capability.h.
"""

from __future__ import annotations

import ctypes
import os
import struct

CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 0x40000
MNT_DETACH = 2

ATTR_RDONLY = 1
ATTR_NOSUID = 2
ATTR_NODEV = 4
ATTR_NOEXEC = 8

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_CAPBSET_READ = 23
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_CLEAR_ALL = 4

CAP_SYS_ADMIN = 21
SIGINT, SIGKILL, SIGPIPE, SIGXFSZ = 2, 9, 13, 25  # the same on x86_64 and aarch64; `signal` is slow to import

_AT_FDCWD = -100
_AT_RECURSIVE = 0x8000
_SYS_CLOSE_RANGE = 436
_SYS_MOUNT_SETATTR = 442
_SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_CAPABILITY_VERSION_3 = 0x20080522
_SIG_DFL = 0

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_libc.signal.restype = ctypes.c_void_p
_libc.signal.argtypes = [ctypes.c_int, ctypes.c_void_p]
_libc.mount.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p]


def _check(result: int, what: str) -> int:
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def unshare(flags: int) -> None:
    """Give the calling process new namespaces."""
    _check(_libc.unshare(ctypes.c_int(flags)), f"unshare({flags:#x})")


def mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    """Mount `source` on `target`."""
    result = _libc.mount(source.encode(), target.encode(), kind.encode(), flags, data.encode())
    _check(result, f"mount {kind or 'bind'} on {target}")


def detach(target: str) -> None:
    """Take the mount on `target`, with all below it, out of the tree."""
    _check(_libc.umount2(target.encode(), ctypes.c_int(MNT_DETACH)), f"umount2 {target}")


def restrict_mount(target: str, attributes: int, *, recursive: bool) -> None:
    """Add `ATTR_*` to the mount on `target`, and to each below it if `recursive` (Linux 5.12)."""
    attr = struct.pack("=QQQQ", attributes, 0, 0, 0)
    result = _libc.syscall(
        ctypes.c_long(_SYS_MOUNT_SETATTR),
        ctypes.c_long(_AT_FDCWD),
        ctypes.c_char_p(target.encode()),
        ctypes.c_long(_AT_RECURSIVE if recursive else 0),
        ctypes.c_char_p(attr),
        ctypes.c_size_t(len(attr)),
    )
    _check(result, f"mount_setattr {target}")


def pivot_root(new_root: str, put_old: str) -> None:
    """Make `new_root` the root directory and move the old one to `put_old`."""
    result = _libc.syscall(
        ctypes.c_long(_SYS_PIVOT_ROOT[os.uname().machine]),
        ctypes.c_char_p(new_root.encode()),
        ctypes.c_char_p(put_old.encode()),
    )
    _check(result, "pivot_root")


def prctl(option: int, argument: int = 0, extra: int = 0) -> int:
    """Call prctl with the other arguments zero, as newer options demand."""
    longs = (ctypes.c_ulong(argument), ctypes.c_ulong(extra), ctypes.c_ulong(0), ctypes.c_ulong(0))
    return _check(_libc.prctl(ctypes.c_int(option), *longs), f"prctl({option})")


def prctl_pointer(option: int, argument: int, pointer: ctypes.c_void_p) -> None:
    """Call prctl with a pointer as third argument."""
    _check(_libc.prctl(ctypes.c_int(option), ctypes.c_ulong(argument), pointer), f"prctl({option})")


def clear_capabilities() -> None:
    """Empty the effective, permitted and inheritable sets."""
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    result = _libc.capset(ctypes.c_char_p(header), ctypes.c_char_p(bytes(24)))
    _check(result, "capset")


def has_capability(number: int) -> bool:
    """Say whether the calling process holds a capability now."""
    header = ctypes.create_string_buffer(struct.pack("=Ii", _CAPABILITY_VERSION_3, 0))
    sets = ctypes.create_string_buffer(24)
    _check(_libc.capget(header, sets), "capget")
    effective_low, _, _, effective_high, _, _ = struct.unpack("=6I", sets.raw[:24])
    return bool((effective_high << 32 | effective_low) >> number & 1)


def set_host_name(name: str) -> None:
    """Name the machine in this UTS namespace."""
    _check(_libc.sethostname(ctypes.c_char_p(name.encode()), ctypes.c_size_t(len(name))), "sethostname")


def close_all_but(*keep: int) -> None:
    """Close every descriptor that is not in `keep`, also those above a limit that was lowered since (Linux 5.9)."""
    low = 0
    for fd in (*sorted(keep), 2**31):
        if low < fd:
            arguments = (ctypes.c_ulong(low), ctypes.c_ulong(fd - 1), ctypes.c_ulong(0))
            _check(_libc.syscall(ctypes.c_long(_SYS_CLOSE_RANGE), *arguments), "close_range")
        low = fd + 1


def default_signal(number: int) -> None:
    """Put a signal back to its default action (an ignored one would stay ignored across exec)."""
    _libc.signal(number, _SIG_DFL)
