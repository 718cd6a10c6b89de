# SPDX-License-Identifier: Apache-2.0
"""`cloister-dev`: a whole site on loopback, for trying things out."""

from __future__ import annotations

import signal
import sys
from contextlib import ExitStack
from pathlib import Path

import click

from cloister_dev.errors import DevError
from cloister_dev.layout import Layout
from cloister_dev.site import running_site


@click.group()
def main() -> None:
    """Run a Cloister site on this machine alone.  Its root is a throw-away: never use it for real data."""


@main.command()
@click.option(
    "--dir",
    "directory",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("cloister-site"),
    show_default=True,
    help="Where the site lives; made at the first start.",
)
def up(directory: Path) -> None:
    """Start the site and stay until ctrl-C."""
    layout = Layout(directory.resolve())
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with ExitStack() as stack:
            running_site(stack, layout, click.echo)
            home = layout.home("alice")
            click.echo(f"\nTry it, in another terminal:\n  export CLOISTER_HOME={home}\n  cloister whoami\n")
            click.echo("ctrl-C stops it.")
            _stay()
            click.echo("stopping")
    except DevError as error:
        click.echo(f"cloister-dev: {error}", err=True)
        sys.exit(1)


def _stay() -> None:
    try:
        while True:
            signal.pause()
    except KeyboardInterrupt:
        return


if __name__ == "__main__":
    main()
