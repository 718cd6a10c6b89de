# SPDX-License-Identifier: Apache-2.0
"""The launcher process without a sandbox: same descriptors, environment, limits and lifeline, no walls."""

from __future__ import annotations

import os

from cloister_workers.sandbox import payload
from cloister_workers.sandbox.payload import Report
from cloister_workers.sandbox.plan import Plan
from cloister_workers.sandbox.syscalls import (
    PR_SET_CHILD_SUBREAPER,
    PR_SET_NO_NEW_PRIVS,
    PR_SET_PDEATHSIG,
    SIGKILL,
    close_all_but,
    prctl,
)


def main(plan_fd: int, report_fd: int, lifeline: int) -> None:
    """Run the launcher; never returns."""
    report = Report(report_fd)
    os.set_inheritable(report_fd, False)
    try:
        with os.fdopen(plan_fd, "rb") as file:
            plan = Plan.decode(file.read())
        payload.end_like(run_to_end(plan, report, lifeline))
    except BaseException as error:  # noqa: BLE001  whatever it was, the agent must hear of it
        report.fail(error)
    os._exit(payload.FAILED)


def run_to_end(plan: Plan, report: Report, lifeline: int) -> int:
    """Run the program until it ends or the lifeline does; nothing of it is left then.  Returns its wait status."""
    # Orphans of the program become children of the launcher, which kills them when the program has ended.
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    gate, open_gate = os.pipe()
    program = os.fork()
    if program == 0:
        _run(plan, report, gate, open_gate)
    close_all_but(0, 1, 2, lifeline, open_gate)
    os.write(open_gate, b"g")
    status = payload.supervise(program, lifeline)
    _kill_orphans()
    return status


def _run(plan: Plan, report: Report, gate: int, open_gate: int) -> None:
    try:
        report.stage = "privileges"
        prctl(PR_SET_NO_NEW_PRIVS, 1)
        prctl(PR_SET_PDEATHSIG, SIGKILL)
        payload.limit_resources(plan.limits)
        os.close(open_gate)
        if os.read(gate, 1) == b"g":  # else the launcher died before it could take us along
            payload.execute(plan, report)
    except BaseException as error:  # noqa: BLE001  see main
        report.fail(error)
    os._exit(payload.FAILED)


def _kill_orphans() -> None:
    path = f"/proc/self/task/{os.getpid()}/children"
    while True:
        with open(path, encoding="ascii") as file:  # noqa: PTH123  pathlib is slow to import
            children = [int(child) for child in file.read().split()]
        if not children:
            return
        for child in children:
            os.kill(child, SIGKILL)
        for child in children:
            os.waitpid(child, 0)
