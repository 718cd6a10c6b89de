# SPDX-License-Identifier: Apache-2.0
"""The process of the trainer's unit: takes one plan from the agent, runs its program, and says how that ended.

systemd has built the walls before this runs (deploy/systemd/cloister-trainer@.service) and tears down what is left
when it ends.  `unit` is the agent's end of the connection.
"""

from __future__ import annotations

import array
import os
import socket

from cloister_workers.sandbox.bare import run_to_end
from cloister_workers.sandbox.payload import FAILED, Report
from cloister_workers.sandbox.plan import Plan
from cloister_workers.sandbox.unit import EXIT_CODE

LISTEN_FD = 3
"""Where systemd puts the accepted connection: sd_listen_fds(3)."""
_MAX_FDS = 16


def main() -> int:
    """Run one program; returns the exit status of the unit."""
    connection = socket.socket(fileno=LISTEN_FD)
    received = _receive(connection)
    if len(received) < 2:
        return FAILED  # the agent went away before it said what it wanted
    plan_fd, report_fd, *fds = received
    report = Report(report_fd)
    try:
        with os.fdopen(plan_fd, "rb") as file:
            plan = Plan.decode(file.read())
        plan.fds = {target: fds[place] for target, place in plan.fds.items()}
        status = run_to_end(plan, report, connection.fileno())
    except BaseException as error:  # noqa: BLE001  whatever it was, the agent must hear of it
        report.fail(error)
        return FAILED
    connection.sendall(EXIT_CODE.pack(os.waitstatus_to_exitcode(status)))
    return 0


def _receive(connection: socket.socket) -> list[int]:
    """The descriptors of the plan, of the report, and of what the program gets."""
    numbers = array.array("i")
    space = socket.CMSG_SPACE(_MAX_FDS * numbers.itemsize)
    _, ancillary, _, _ = connection.recvmsg(1, space, socket.MSG_CMSG_CLOEXEC)
    for level, kind, payload in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            numbers.frombytes(payload[: len(payload) - len(payload) % numbers.itemsize])
    return list(numbers)
