# SPDX-License-Identifier: Apache-2.0
"""`python -m cloister_dev.reference rpc|programs`: print a page."""

from __future__ import annotations

import click

from cloister_dev.reference import programs, rpc

PAGES = {"rpc": rpc.page, "programs": programs.page}


@click.command()
@click.argument("name", metavar="PAGE", type=click.Choice(sorted(PAGES)))
def main(name: str) -> None:
    """Print the reference page PAGE."""
    click.echo(PAGES[name](), nl=False)


if __name__ == "__main__":
    main()
