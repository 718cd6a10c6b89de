# SPDX-License-Identifier: Apache-2.0
"""Options that many commands share."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from cloister.client import Client

home_option = click.option(
    "--home",
    type=click.Path(file_okay=False, path_type=Path),
    envvar="CLOISTER_HOME",
    help="Directory of your keys.  [default: $CLOISTER_HOME, else ~/.cloister]",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print the contract's JSON form.")
limit_option = click.option("--limit", type=click.IntRange(1), help="At most so many.  [default: all]")

rows_option = click.option(
    "--rows",
    multiple=True,
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Check these rows, as they were pushed, against the method; implies --dry-run; may be repeated.",
)


def open_client(home: Path | None) -> Client:
    """The client of a home, with the site verified and a certificate past half its life renewed."""
    from cloister.client import Client

    client = Client.open(home)
    if warning := client.renew_if_due(now()):
        click.echo(f"warning: {warning}", err=True)
    return client


def now() -> int:
    """Unix seconds."""
    return int(time.time())
