# SPDX-License-Identifier: Apache-2.0
"""The system call filter, assembled here as classic BPF and installed by prctl.

It is the second wall: namespaces and empty capabilities already deny most of this. It makes a kernel bug behind one
of these calls unreachable, and it holds where a namespace alone would not (a socket family, a nested user namespace).
A listed call fails with EPERM, one newer than this list with ENOSYS, and a foreign calling convention kills.

Numbers: asm/unistd_64.h and asm-generic/unistd.h of Linux 6.18; format: linux/seccomp.h, linux/filter.h.
Not covered: this is a deny list. GPU drivers and compilers use too many calls for an allow list to hold.
"""

from __future__ import annotations

import ctypes
import errno
import struct

from cloister_workers.sandbox import syscalls

AF_UNIX, AF_INET, AF_INET6, AF_NETLINK = 1, 2, 10, 16

LAST_KNOWN_CALL = 469  # file_setattr; what a later kernel adds was not looked at, so it does not exist
ALLOW = 0x7FFF0000
KILL = 0x80000000
EPERM = 0x00050000 | errno.EPERM
ENOSYS = 0x00050000 | errno.ENOSYS

AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
X32_BIT = 0x40000000  # x32 numbers would pass a filter written for x86_64
NAMESPACE_FLAGS = 0x7E020000  # every CLONE_NEW* that clone() takes

# The number on x86_64, then the one on aarch64; None where there is no such call.
DENIED: dict[str, tuple[int | None, int | None]] = {
    # Other processes' memory and descriptors.
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "pidfd_getfd": (438, 438),
    "kcmp": (312, 272),
    # io_uring runs calls, socket() among them, that no filter sees.
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    # What exploits of the kernel are built from.
    "bpf": (321, 280),
    "userfaultfd": (323, 282),
    "perf_event_open": (298, 241),
    "modify_ldt": (154, None),
    "personality": (135, 92),
    # The agent's session keyring is inherited: nobody may look into it.
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    # Mounts and namespaces: the tree stays as it was built.
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "move_mount": (429, 429),
    "open_tree": (428, 428),
    "open_tree_attr": (467, 467),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "unshare": (272, 97),
    "setns": (308, 268),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "fanotify_init": (300, 262),
    # The machine itself.
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "acct": (163, 89),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "syslog": (103, 116),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "adjtimex": (159, 171),
    "clock_adjtime": (305, 266),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "vhangup": (153, 58),
    "iopl": (172, None),
    "ioperm": (173, None),
    "uselib": (134, None),
    "lookup_dcookie": (212, 18),
    "nfsservctl": (180, 42),
}
SOCKET = (41, 198)
CLONE = (56, 220)
CLONE3 = (435, 435)

_PR_SET_SECCOMP = 22
_MODE_FILTER = 2
_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _JUMP_ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data; low word first

Instruction = tuple[int, int, int, int]  # code, jump if true, jump if false, k


def _when(jump: int, value: int, body: list[Instruction]) -> list[Instruction]:
    return [(jump, 0, len(body), value), *body]


def _return(action: int) -> list[Instruction]:
    return [(_RETURN, 0, 0, action)]


def program(machine: str, families: list[int]) -> list[Instruction]:
    """Return the filter for a machine (`uname -m`) on which socket() may use only `families`.

    Raises KeyError for a machine whose numbers are not listed here.
    """
    architecture = AUDIT_ARCH[machine]
    column = list(AUDIT_ARCH).index(machine)
    code: list[Instruction] = [(_LOAD, 0, 0, _ARCHITECTURE), (_JUMP_EQUAL, 1, 0, architecture), *_return(KILL)]
    code += [(_LOAD, 0, 0, _NUMBER)]
    if machine == "x86_64":
        code += _when(_JUMP_AT_LEAST, X32_BIT, _return(KILL))
    code += _when(_JUMP_AT_LEAST, LAST_KNOWN_CALL + 1, _return(ENOSYS))
    # clone3's flags are behind a pointer that a filter cannot follow; on ENOSYS libc falls back to clone.
    code += _when(_JUMP_EQUAL, CLONE3[column], _return(ENOSYS))
    for numbers in DENIED.values():
        number = numbers[column]
        if number is not None:
            code += _when(_JUMP_EQUAL, number, _return(EPERM))

    clone: list[Instruction] = [(_LOAD, 0, 0, _FIRST_ARGUMENT)]
    clone += _when(_JUMP_ANY_BIT, NAMESPACE_FLAGS, _return(EPERM)) + _return(ALLOW)
    code += _when(_JUMP_EQUAL, CLONE[column], clone)

    socket: list[Instruction] = [(_LOAD, 0, 0, _FIRST_ARGUMENT)]
    for family in families:
        socket += _when(_JUMP_EQUAL, family, _return(ALLOW))
    code += _when(_JUMP_EQUAL, SOCKET[column], socket + _return(EPERM))
    return code + _return(ALLOW)


def install(machine: str, families: list[int]) -> None:
    """Put the filter on the calling process and all its descendants, for good; no_new_privs must be set."""
    code = program(machine, families)
    instructions = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in code))
    header = struct.pack("@HP", len(code), ctypes.addressof(instructions))
    buffer = ctypes.create_string_buffer(header, len(header))
    syscalls.prctl_pointer(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.cast(buffer, ctypes.c_void_p))
