# SPDX-License-Identifier: Apache-2.0
"""`cloister-admin root`: the beginning of a site."""

from __future__ import annotations

from pathlib import Path

import click

from cloister.admin.options import directory_option
from cloister.cli.output import print_fields


@click.group()
def root() -> None:
    """The site's root key and certificate authority."""


@root.command()
@directory_option
@click.option("--site", required=True, help="Name of the site: a-z, 0-9, '.', '_', '-'.")
@click.option("--endpoint", default="", help="HOST:PORT of the control plane, for welcome files.")
@click.option(
    "--log-key",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Make the log's key too, in this new file, as `log keygen --origin SITE/log` does.",
)
def init(directory: Path, site: str, endpoint: str, log_key: Path | None) -> None:
    """Make root, certificate authority and an empty roster.

    An existing root is never overwritten.
    """
    from cloister.admin.log_key import name_log_key
    from cloister.admin.root import create_root

    custody = create_root(directory, site, endpoint=endpoint)
    if log_key is not None:
        name_log_key(custody, f"{site}/log", log_key)
    print_fields((("site", site), ("directory", str(directory)), ("root", custody.root_public())))


@root.command()
@directory_option
def show(directory: Path) -> None:
    """Show the root's public key and what the next roster will hold."""
    from cloister.admin.custody import Custody

    custody = Custody(directory)
    draft = custody.draft()
    print_fields(
        (
            ("site", draft.site),
            ("root", custody.root_public()),
            ("endpoint", custody.endpoint()),
            ("next roster", f"version {draft.version}"),
            ("log", draft.log_vkey),
            ("teams", ", ".join(team.id for team in draft.teams)),
            ("people", ", ".join(person.id for person in draft.people)),
            ("hosts", ", ".join(host.id for host in draft.hosts)),
        )
    )
