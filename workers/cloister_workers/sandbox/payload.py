# SPDX-License-Identifier: Apache-2.0
"""The last steps of the program's own process, and the watch of the launcher over it; shared with `bare`."""

from __future__ import annotations

import fcntl
import os
import resource
import select

from cloister_workers.sandbox.plan import Plan
from cloister_workers.sandbox.syscalls import (
    PR_SET_DUMPABLE,
    SIGINT,
    SIGKILL,
    SIGPIPE,
    SIGXFSZ,
    close_all_but,
    default_signal,
    prctl,
)

FAILED = 125  # exit status of a launcher that reported a failure


class Report:
    """Where a failure before exec is told to the agent; silence and end of file mean that the program runs."""

    def __init__(self, fd: int) -> None:
        self.fd = fd  # close-on-exec in every process that holds it
        self.stage = "start"

    def fail(self, error: BaseException) -> None:
        """Send stage, errno and text, separated by NUL."""
        number = error.errno if isinstance(error, OSError) and error.errno else 0
        text = error.strerror if isinstance(error, OSError) and error.strerror else f"{type(error).__name__}: {error}"
        if isinstance(error, OSError) and error.filename:
            text = f"{text}: {error.filename}"
        os.write(self.fd, f"{self.stage}\0{number}\0{text}".encode("utf-8", "replace")[:4096])


def limit_resources(limits: list[tuple[int, int]]) -> None:
    """Set soft and hard limit alike, never above the hard limit that is there."""
    for which, wanted in limits:
        hard = resource.getrlimit(which)[1]
        value = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(which, (value, value))


def execute(plan: Plan, report: Report) -> None:
    """Become the program; returns only by exception."""
    report.stage = "program"
    os.setsid()  # no controlling terminal to push characters into
    os.umask(0o077)
    os.chdir(plan.cwd)
    for number in (SIGINT, SIGPIPE, SIGXFSZ):
        default_signal(number)
    _arrange_descriptors(plan, report)
    limit_resources(plan.own_limits)
    os.execve(plan.argv[0], plan.argv, plan.env)  # noqa: S606


def supervise(child: int, lifeline: int) -> int:
    """Wait for `child` and return its wait status; kill it when the agent lets go of the lifeline or dies."""
    child_ended = os.pidfd_open(child)
    poll = select.poll()
    poll.register(child_ended, select.POLLIN)
    poll.register(lifeline, select.POLLIN)
    while True:
        ready = {fd for fd, _ in poll.poll()}
        if child_ended in ready:
            return os.waitpid(child, 0)[1]
        poll.unregister(lifeline)
        os.kill(child, SIGKILL)


def end_like(status: int) -> None:
    """End the launcher as the program ended, so that the agent sees its exit code or its signal."""
    prctl(PR_SET_DUMPABLE, 0)  # the core file, if any, was the program's affair
    if os.WIFSIGNALED(status):
        default_signal(os.WTERMSIG(status))
        os.kill(os.getpid(), os.WTERMSIG(status))
    os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


def _arrange_descriptors(plan: Plan, report: Report) -> None:
    # All sources first move above every target, so that no dup2 overwrites one that is still to come.
    floor = max((2, *plan.fds)) + 1
    report_fd = fcntl.fcntl(report.fd, fcntl.F_DUPFD_CLOEXEC, floor)
    sources = {target: fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, floor) for target, fd in plan.fds.items()}
    null = fcntl.fcntl(os.open("/dev/null", os.O_RDWR), fcntl.F_DUPFD_CLOEXEC, floor)
    for target in {0, 1, 2, *sources}:
        os.dup2(sources.get(target, null), target, inheritable=True)
    report.fd = report_fd
    close_all_but(0, 1, 2, *sources, report_fd)
