# SPDX-License-Identifier: Apache-2.0
"""`cloister quota`: what a team may have at once, and what it has."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cloister.cli.options import home_option, json_option, open_client
from cloister.cli.output import print_messages, print_table

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cloister.api.v1 import operations_pb2

_FIELDS = ("queued_jobs", "running_jobs", "stored_bytes", "gpu_seconds")
_limit = click.IntRange(0)


@click.group()
def quota() -> None:
    """What a team may have at once, and what it has."""


@quota.command("list")
@json_option
@home_option
def list_(as_json: bool, home: Path | None) -> None:
    """List used figures and limits: every team for admins, your own for members."""
    with open_client(home) as client:
        found = client.operations.usage()
    if as_json:
        print_messages(found)
    else:
        _print(found)


@quota.command("set")
@click.argument("team")
@click.option("--queued-jobs", type=_limit, help="Jobs that wait; beyond it a submission is refused.")
@click.option("--running-jobs", type=_limit, help="Jobs that run; beyond it jobs wait.")
@click.option("--stored-bytes", type=_limit, help="Bytes of sealed objects; beyond it datasets and models are refused.")
@click.option("--gpu-seconds", type=_limit, help="GPU time of 24 hours; beyond it a submission is refused.")
@home_option
def set_(team: str, home: Path | None, **limits: int | None) -> None:
    """Replace the limits of TEAM (admins).

    A limit that is left out is lifted.
    """
    named = {name: value for name, value in limits.items() if value is not None}
    with open_client(home) as client:
        found = client.operations.set_quota(team, named)
    _print([found])


def _print(found: Iterable[operations_pb2.TeamUsage]) -> None:
    print_table(("TEAM", *(name.upper().replace("_", " ") for name in _FIELDS)), [_row(item) for item in found])


def _row(item: operations_pb2.TeamUsage) -> tuple[str, ...]:
    limits = {field.name: value for field, value in item.limits.ListFields()}
    return (item.team, *(f"{getattr(item.used, name)} of {limits.get(name, 'any')}" for name in _FIELDS))
