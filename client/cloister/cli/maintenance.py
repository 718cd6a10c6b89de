# SPDX-License-Identifier: Apache-2.0
"""`cloister maintenance`: the site takes nothing new for a while."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cloister.cli.options import home_option, json_option, open_client
from cloister.cli.output import moment, print_fields, print_json, print_message

if TYPE_CHECKING:
    from cloister.api.v1 import operations_pb2


@click.group()
def maintenance() -> None:
    """New jobs, uploads and releases are refused for a while; what runs goes on."""


@maintenance.command()
@click.option("--reason", required=True, help="What people are told; at most 200 characters.")
@click.option("--until", type=click.DateTime(), help="When it is expected to end, UTC.")
@home_option
def begin(reason: str, until: datetime | None, home: Path | None) -> None:
    """Begin maintenance, or change its reason and end (admins).

    It ends when `maintenance end` says so, not by itself.
    """
    with open_client(home) as client:
        answer = client.operations.begin_maintenance(reason, None if until is None else until.replace(tzinfo=UTC))
    _print(answer.maintenance)
    click.echo(f"{answer.running} leases are held and go on to their end", err=True)


@maintenance.command()
@home_option
def end(home: Path | None) -> None:
    """End maintenance (admins)."""
    with open_client(home) as client:
        client.operations.end_maintenance()


@maintenance.command()
@json_option
@home_option
def show(as_json: bool, home: Path | None) -> None:
    """Say whether the site is under maintenance, and until when."""
    with open_client(home) as client:
        found = client.operations.maintenance()
    if as_json:
        if found is None:
            print_json(None)
        else:
            print_message(found)
    elif found is None:
        click.echo("no maintenance")
    else:
        _print(found)


def _print(found: operations_pb2.Maintenance) -> None:
    print_fields(
        (("reason", found.reason), ("since", moment(found.since)), ("until", moment(found.until)), ("by", found.by))
    )
