# SPDX-License-Identifier: Apache-2.0
"""The system call filter, run by a small interpreter of classic BPF."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cloister_workers.sandbox import seccomp

MACHINES = list(seccomp.AUDIT_ARCH)


def verdict(machine: str, number: int, *, argument: int = 0, architecture: int | None = None, families=(1,)) -> int:
    """Run the filter over one call and return its action; follows linux/filter.h, for the instructions we use."""
    code = seccomp.program(machine, list(families))
    arch = seccomp.AUDIT_ARCH[machine] if architecture is None else architecture
    words = {0: number, 4: arch, 16: argument & 0xFFFFFFFF}
    accumulator, at = 0, 0
    while True:
        operation, if_true, if_false, k = code[at]
        at += 1
        match operation:
            case 0x20:
                accumulator = words[k]
            case 0x15:
                at += if_true if accumulator == k else if_false
            case 0x35:
                at += if_true if accumulator >= k else if_false
            case 0x45:
                at += if_true if accumulator & k else if_false
            case 0x06:
                return k
            case _:
                raise AssertionError(operation)


@pytest.mark.parametrize("machine", MACHINES)
def test_every_listed_call_is_denied(machine):
    """Each listed call that the machine has must fail with EPERM."""
    column = MACHINES.index(machine)
    numbers = [pair[column] for pair in seccomp.DENIED.values()]
    assert {seccomp.EPERM} == {verdict(machine, number) for number in numbers if number is not None}


@pytest.mark.parametrize(("machine", "number"), [("x86_64", 0), ("x86_64", 59), ("aarch64", 63), ("aarch64", 221)])
def test_ordinary_calls_are_allowed(machine, number):
    """read and execve must pass."""
    assert seccomp.ALLOW == verdict(machine, number)


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("family", range(46))
def test_unix_is_the_only_socket_family(machine, family):
    """socket() must be allowed for AF_UNIX and refused for every other family."""
    number = seccomp.SOCKET[MACHINES.index(machine)]
    expected = seccomp.ALLOW if family == seccomp.AF_UNIX else seccomp.EPERM
    assert expected == verdict(machine, number, argument=family)


@pytest.mark.parametrize("machine", MACHINES)
def test_high_half_of_a_family_does_not_hide_it(machine):
    """The kernel takes the family as an int, so bits above the low word must change nothing."""
    number = seccomp.SOCKET[MACHINES.index(machine)]
    assert seccomp.EPERM == verdict(machine, number, argument=1 << 32 | seccomp.AF_INET)


def test_families_of_the_plan_are_allowed():
    """With loopback asked for, the families of the plan and no others must be allowed."""
    allowed = [f for f in range(46) if verdict("x86_64", 41, argument=f, families=(1, 2, 10, 16)) == seccomp.ALLOW]
    assert [1, 2, 10, 16] == allowed


@pytest.mark.parametrize("machine", MACHINES)
def test_clone_makes_no_namespaces(machine):
    """clone() must pass for threads and processes and be refused with any namespace flag."""
    number = seccomp.CLONE[MACHINES.index(machine)]
    thread, process = 0x3D0F00, 0x1200011
    assert [seccomp.ALLOW, seccomp.ALLOW] == [verdict(machine, number, argument=a) for a in (thread, process)]
    for bit in (17, 25, 26, 27, 28, 29, 30):
        assert seccomp.EPERM == verdict(machine, number, argument=process | 1 << bit)


@pytest.mark.parametrize("machine", MACHINES)
def test_clone3_and_unknown_calls_do_not_exist(machine):
    """clone3, whose flags cannot be seen, and calls newer than the list must fail with ENOSYS."""
    assert {seccomp.ENOSYS} == {verdict(machine, n) for n in (435, seccomp.LAST_KNOWN_CALL + 1, 1000)}


@pytest.mark.parametrize("machine", MACHINES)
def test_foreign_calling_convention_kills(machine):
    """A call by another architecture's convention, such as int 0x80, must kill the process."""
    i386 = 0x40000003
    assert seccomp.KILL == verdict(machine, 0, architecture=i386)


def test_x32_numbers_kill():
    """On x86_64 a number with the x32 bit must kill, or every entry could be passed by."""
    assert seccomp.KILL == verdict("x86_64", seccomp.X32_BIT | 101)


def test_program_fits_the_kernel():
    """The filter must stay within the kernel's 4096 instructions and 8-bit jumps."""
    code = seccomp.program("x86_64", [1, 2, 10, 16])
    assert len(code) <= 4096
    assert max(max(line[1], line[2]) for line in code) <= 255


def test_unknown_machine_is_refused():
    """A machine whose numbers are not listed must get no filter at all rather than a wrong one."""
    with pytest.raises(KeyError):
        seccomp.program("riscv64", [1])


@pytest.mark.parametrize(
    ("header", "column", "pattern"),
    [
        ("/usr/include/x86_64-linux-gnu/asm/unistd_64.h", 0, r"__NR_(\w+) (\d+)"),
        ("/usr/include/asm-generic/unistd.h", 1, r"__NR(?:3264)?_(\w+) (\d+)"),
    ],
)
def test_numbers_agree_with_the_system_headers(header, column, pattern):
    """Where kernel headers are installed, each number that they define must be ours."""
    if not Path(header).exists():
        pytest.skip("kernel headers are not installed")
    known = {name: int(number) for name, number in re.findall(pattern, Path(header).read_text())}
    ours = {**seccomp.DENIED, "socket": seccomp.SOCKET, "clone": seccomp.CLONE, "clone3": seccomp.CLONE3}
    wrong = {name: pair[column] for name, pair in ours.items() if name in known and known[name] != pair[column]}
    assert {} == wrong
