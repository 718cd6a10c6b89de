# SPDX-License-Identifier: Apache-2.0
"""The embedded site: control plane, key agent and worker agent on loopback, out of one directory."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path

import grpc

from cloister import Client
from cloister.errors import CloisterError
from cloister.evidence.signatures import Statement
from cloister.home import Home
from cloister_dev.found import found_site, is_founded, policy_statement
from cloister_dev.layout import HOST, PEOPLE, TEAM, Layout
from cloister_dev.processes import Program, RunningProgram, start_all
from cloister_workers.keyagent.protocol import socket_address

SERVER_MEMORY = {
    "MALLOC_ARENA_MAX": "2",
    "MALLOC_MMAP_THRESHOLD_": "131072",
    "MALLOC_TRIM_THRESHOLD_": "131072",
}
"""What cloister-server.service sets, and why, it says."""


def running_site(stack: ExitStack, layout: Layout, say: Callable[[str], None]) -> list[RunningProgram]:
    """Found the site if it is new, start its processes, and publish the policy; the stack stops them."""
    if not is_founded(layout):
        found_site(layout)
    running = start_all(stack, programs(layout), layout.log)
    publish_policy(layout)
    pins = Home(layout.home("alice")).pins()
    say(f"  control plane  {pins.endpoint}, mutual TLS, SQLite, audit log in the same transaction")
    say(f"  worker host    {HOST}: key agent and agent; each job's trainer in a sandbox without a network")
    people = ", ".join(f"{person} ({', '.join(roles)})" for person, roles in PEOPLE.items())
    say(f"  team {TEAM:<9} {people}; homes in {layout.home('')}")
    return running


def programs(layout: Layout) -> list[Program]:
    """What runs, in the order in which it must start."""
    host = str(layout.worker)
    server = ("serve", "--config", str(layout.server_config))
    return [
        Program("server", "cloister_server", server, lambda: _answers(layout), SERVER_MEMORY),
        Program("keyagent", "cloister_workers", ("keyagent", "--dir", host), lambda: accepts(layout.worker)),
        Program("agent", "cloister_workers", ("agent", "--dir", host), lambda: True),
    ]


def _answers(layout: Layout) -> bool:
    try:
        with Client.open(layout.home("dana")) as client:
            client.whoami()
    except (CloisterError, grpc.RpcError):
        return False
    return True


def accepts(host: Path) -> bool:
    """Whether the key agent of the worker host in this directory takes connections."""
    with closing(socket.socket(socket.AF_UNIX)) as probe:
        try:
            with socket_address(host / "keyagent" / "keyagent.sock") as address:
                probe.connect(address)
        except OSError:
            return False
    return True


def publish_policy(layout: Layout) -> None:
    """Publish the signed policy as the admin.  Safe to repeat."""
    with Client.open(layout.home("dana")) as client:
        client.publish_policy(Statement.from_bytes(policy_statement(layout)))
