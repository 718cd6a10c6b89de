# SPDX-License-Identifier: Apache-2.0
"""`cloister worker`: worker hosts and whether they take work (admins)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cloister.cli.options import home_option, json_option, open_client
from cloister.cli.output import moment, print_messages, print_table, state_name

if TYPE_CHECKING:
    from cloister.api.v1 import operations_pb2


@click.group()
def worker() -> None:
    """Worker hosts and whether they take work (admins)."""


@worker.command("list")
@json_option
@home_option
def list_(as_json: bool, home: Path | None) -> None:
    """List the certified hosts with what they said last and what they work on."""
    with open_client(home) as client:
        found = client.operations.workers()
    if as_json:
        print_messages(found)
        return
    header = ("HOST", "POOL", "MODE", "GPUS", "SANDBOX", "VERSION", "LAST SEEN", "WORKS ON")
    print_table(header, [_row(item) for item in found])


@worker.command()
@click.argument("host")
@home_option
def cordon(host: str, home: Path | None) -> None:
    """Give HOST nothing new; what it runs goes on."""
    _set(host, "cordoned", home)


@worker.command()
@click.argument("host")
@home_option
def drain(host: str, home: Path | None) -> None:
    """Give HOST nothing new, and have its agent end when it has finished what it runs."""
    _set(host, "draining", home)


@worker.command()
@click.argument("host")
@home_option
def uncordon(host: str, home: Path | None) -> None:
    """Let HOST take work again."""
    _set(host, "active", home)


def _set(host: str, mode: str, home: Path | None) -> None:
    with open_client(home) as client:
        found = client.operations.set_mode(host, mode)
    works = f"; it works on {found.work_id}" if found.work_id else "; it works on nothing"
    click.echo(f"{found.host} is {mode}{works}")


def _row(item: operations_pb2.Worker) -> tuple[str, ...]:
    from cloister.api.v1 import operations_pb2

    sandbox = ("yes" if item.sandboxed else "no") if item.HasField("sandboxed") else "?"
    seen = moment(item.last_seen) or "never"
    mode = state_name(operations_pb2.WorkerMode.DESCRIPTOR, item.mode)
    return (item.host, item.pool, mode, str(item.gpus), sandbox, item.version, seen, item.work_id or "-")
