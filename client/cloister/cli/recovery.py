# SPDX-License-Identifier: Apache-2.0
"""`cloister recovery`: what a team does with its offline recovery key."""

from __future__ import annotations

from pathlib import Path

import click

from cloister.cli.bars import transfer
from cloister.cli.options import home_option, open_client
from cloister.cli.wraps import tell

_key = click.option(
    "--key",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    required=True,
    help="The team's recovery identity; take it offline again afterwards.",
)


@click.group()
def recovery() -> None:
    """Use the team's recovery key: for new hosts, or when an owner has left."""


@recovery.command()
@_key
@home_option
def rewrap(key: Path, home: Path | None) -> None:
    """Wrap every dataset and base model of your team to hosts that were certified later.

    Also after the roster got a new recovery key for the team.  Run it again after an interruption.  Adapted versions
    are not sealed to this key: see `cloister model rewrap`.
    """
    from cloister.local import read_identity

    identity = read_identity(key)
    with open_client(home) as client:
        done = list(client.grants.rewrap(identity))
        lacking = client.grants.lacking()
    if lacking:
        click.echo(f"{len(lacking)} adapted versions are not wrapped to every host of their pool", err=True)
        click.echo("next: whom they were released to runs: cloister model rewrap", err=True)
    tell(done)


@recovery.command("open")
@click.argument("dataset")
@_key
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), required=True, help="New file of rows."
)
@home_option
def open_(dataset: str, key: Path, output: Path, home: Path | None) -> None:
    """Fetch a DATASET of your team, whoever sealed it, verify it and open it."""
    from cloister.local import read_identity

    identity = read_identity(key)
    with open_client(home) as client, transfer("fetch") as progress:
        found = client.grants.recover(dataset, identity, output, progress)
    click.echo(f"{found.manifest.kind} {found.manifest.id} by {found.manifest.owner}")
