# SPDX-License-Identifier: Apache-2.0
"""The launcher process: build one sandbox, start one program in it, live as long as it does.

Three processes, each the parent of the next:

    launcher   on the host side; watches the agent (lifeline) and the inside; ends as the program ended
    init       first process of the new pid namespace; builds the tree, gives up every right, then only reaps;
               when it ends, for whatever reason, the kernel kills all that is left inside
    program    what was asked for; sees an empty network, the tree of `filesystem`, and its own processes

Started with three descriptors: the plan, the report (see `payload.Report`), and the lifeline. With CAP_SYS_ADMIN
(a root agent) the namespaces belong to the host and the program then drops to an unprivileged host user in a user
namespace of its own; without it, a user namespace comes first and everything else belongs to that. From inside the
two look alike.
"""

from __future__ import annotations

import errno
import os

from cloister_workers.sandbox import filesystem, payload, seccomp
from cloister_workers.sandbox.payload import Report
from cloister_workers.sandbox.plan import Plan
from cloister_workers.sandbox.syscalls import (
    CAP_SYS_ADMIN,
    CLONE_NEWCGROUP,
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUSER,
    CLONE_NEWUTS,
    PR_CAP_AMBIENT,
    PR_CAP_AMBIENT_CLEAR_ALL,
    PR_CAPBSET_DROP,
    PR_SET_DUMPABLE,
    PR_SET_NO_NEW_PRIVS,
    PR_SET_PDEATHSIG,
    SIGKILL,
    clear_capabilities,
    close_all_but,
    has_capability,
    prctl,
    set_host_name,
    unshare,
)

INSIDE_ID = 1000  # user and group id inside, whoever the agent is
HOST_ID = 65534  # the host's user and group that a root agent's program becomes
_MAP_ME, _GO = b"m", b"g"  # what init asks of the launcher


def main(plan_fd: int, report_fd: int, lifeline: int) -> None:
    """Run the launcher; never returns."""
    report = Report(report_fd)
    os.set_inheritable(report_fd, False)
    try:
        with os.fdopen(plan_fd, "rb") as file:
            plan = Plan.decode(file.read())
        payload.end_like(_launch(plan, report, lifeline))
    except BaseException as error:  # noqa: BLE001  whatever it was, the agent must hear of it
        report.fail(error)
    os._exit(payload.FAILED)


def _launch(plan: Plan, report: Report, lifeline: int) -> int:
    # (1) Namespaces that only a child can be born into. The user namespace must be made together with or before
    # the others, or a process without privileges may not make them.
    report.stage = "user and pid namespace"
    privileged = os.geteuid() == 0 and has_capability(CAP_SYS_ADMIN)
    user, group = os.geteuid(), os.getegid()
    unshare(CLONE_NEWPID | (0 if privileged else CLONE_NEWUSER))
    if not privileged:
        _map_ids("self", user, group)

    requests, ask = os.pipe()
    answers, answer = os.pipe()
    outcome, tell = os.pipe()
    init = os.fork()
    if init == 0:
        _run_init(plan, report, privileged=privileged, ask=ask, answers=answers, tell=tell)

    # (2) Let go of what is the program's: a pipe held open here would never end for its reader.
    close_all_but(0, 1, 2, lifeline, requests, answer, outcome)
    while (request := os.read(requests, 1)) not in (b"", _GO):
        if request == _MAP_ME:
            _map_ids(str(init), HOST_ID, HOST_ID)
        os.write(answer, request)
    if request == _GO:
        os.write(answer, request)

    # (3) Watch. init tells how the program ended; if it could not, it was killed, and so was the program.
    status = payload.supervise(init, lifeline)
    told = os.read(outcome, 4)
    return int.from_bytes(told, "little") if len(told) == 4 else status


def _map_ids(process: str, user: int, group: int) -> None:
    for name, line in (
        ("setgroups", "deny"),
        ("uid_map", f"{INSIDE_ID} {user} 1"),
        ("gid_map", f"{INSIDE_ID} {group} 1"),
    ):
        _write(f"/proc/{process}/{name}", line)


def _run_init(plan: Plan, report: Report, *, privileged: bool, ask: int, answers: int, tell: int) -> None:
    """Be the first process inside; never returns."""
    try:
        # Above all not the launcher's ends of the pipes: with them, its death would go unnoticed.
        close_all_but(ask, answers, tell, report.fd, *plan.fds.values())
        _confine(plan, report, privileged=privileged, ask=ask, answers=answers)
        report.stage = "fork"
        program = os.fork()
        if program == 0:
            payload.execute(plan, report)
        # Hold no descriptor of the program, and no report: its end of file tells the agent that exec succeeded.
        close_all_but(tell)
        while True:
            ended, status = os.wait()
            if ended == program:
                os.write(tell, status.to_bytes(4, "little"))
                os._exit(0)
    except BaseException as error:  # noqa: BLE001  see main
        report.fail(error)
    os._exit(payload.FAILED)


def _confine(plan: Plan, report: Report, *, privileged: bool, ask: int, answers: int) -> None:
    """Give up one thing after the other; the order matters, and each step needs what a later one takes away."""
    # (4) Short of memory, the kernel shall take the trainer and not the agent.
    report.stage = "namespaces"
    _write("/proc/self/oom_score_adj", "800")

    # (5) No network, no host mounts to change, no System V IPC, host name or cgroup path of the host.
    unshare(CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP)
    set_host_name("sandbox")
    if plan.loopback:
        report.stage = "loopback"
        _raise_loopback()

    # (6) No files but those of the plan.
    report.stage = "filesystem"
    filesystem.build(plan, HOST_ID if privileged else INSIDE_ID)

    # (7) No host privileges: an unprivileged host user, and a user namespace that owns none of the above.
    report.stage = "user"
    if privileged:
        os.setgroups([])
        unshare(CLONE_NEWUSER)
        _request(_MAP_ME, ask, answers)
        os.setresgid(INSIDE_ID, INSIDE_ID, INSIDE_ID)
        os.setresuid(INSIDE_ID, INSIDE_ID, INSIDE_ID)
    for model in ("/model", "/auxiliary"):
        filesystem.check_model_readable(model)
    os.mkdir("/scratch/.shm", 0o700)  # noqa: PTH102  behind /dev/shm, so that shared memory counts as scratch

    # (8) No capabilities, not even in this user namespace, and no way to gain any by exec.
    report.stage = "privileges"
    _drop_bounding_set()
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    clear_capabilities()
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    prctl(PR_SET_DUMPABLE, 0)
    payload.limit_resources(plan.limits)

    # (9) Die with the launcher. A change of user clears this, so it stands after (7); should the launcher have died
    # before, nobody answers the request.
    report.stage = "lifeline"
    prctl(PR_SET_PDEATHSIG, SIGKILL)
    _request(_GO, ask, answers)

    # (10) No system calls that the work does not need. Last, because it forbids most of the above.
    report.stage = "seccomp"
    seccomp.install(os.uname().machine, plan.families)


def _request(what: bytes, ask: int, answers: int) -> None:
    os.write(ask, what)
    if os.read(answers, 1) != what:
        os._exit(payload.FAILED)  # the launcher is gone, and nobody else is to be told


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    except OSError as error:
        raise OSError(error.errno, os.strerror(error.errno or 0), path) from error
    finally:
        os.close(fd)


def _raise_loopback() -> None:
    import fcntl
    import socket
    import struct

    set_flags, up = 0x8914, 0x1  # SIOCSIFFLAGS, IFF_UP: linux/sockios.h, linux/if.h
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, set_flags, struct.pack("16sH14x", b"lo", up))


def _drop_bounding_set() -> None:
    for capability in range(64):
        try:
            prctl(PR_CAPBSET_DROP, capability)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            return  # past the last one that this kernel knows
